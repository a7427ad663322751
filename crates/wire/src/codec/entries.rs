//! Entries of the log as the kernel lays them out too: an [`EntryHeader`], then the op, padded with zeros to 8 bytes.

use electrode_vr::{ClientId, Entry, RequestNumber};
use zerocopy::{FromBytes, IntoBytes};

use super::DecodeError;
use crate::header::{ENTRY_HEADER_BYTES, EntryHeader};

/// What every entry's bytes are padded to a multiple of.
const ALIGNMENT: usize = 8;

/// Appends the entries. `epoch` is the envelope's: an entry carries it as the request's header did.
///
/// # Panics
/// An op is longer than a `u32` can say; limits keep ops far below.
pub(super) fn put_entries(epoch: u32, entries: &[Entry], out: &mut Vec<u8>) {
    for entry in entries {
        let length = u32::try_from(entry.op.len()).expect("ops are bounded by Limits::op_bytes");
        let header = EntryHeader {
            client: entry.client.0.into(),
            request: entry.request.0.into(),
            length: length.into(),
            epoch: epoch.into(),
        };
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(&entry.op);
        out.resize(out.len() + padding(entry.op.len()), 0);
    }
}

/// Reads `count` entries that fill `body` exactly; the padding has to be zeros, so that there is one encoding only.
pub(super) fn take_entries(body: &[u8], count: u64) -> Result<Vec<Entry>, DecodeError> {
    // Each entry has a header of its own: a count that the body can't hold is refused before anything is allocated.
    let most = body.len() / ENTRY_HEADER_BYTES;
    let count = usize::try_from(count).ok().filter(|count| *count <= most);
    let count = count.ok_or(DecodeError::Entries(
        "more entries than the body has room for",
    ))?;
    let mut entries = Vec::with_capacity(count);
    let mut rest = body;
    for _ in 0..count {
        let (header, after) = EntryHeader::ref_from_prefix(rest)
            .map_err(|_| DecodeError::Entries("an entry's header is cut off"))?;
        let length = usize::try_from(header.length.get()).unwrap_or(usize::MAX);
        let (op, after) = after
            .split_at_checked(length)
            .ok_or(DecodeError::Entries("an op is longer than the body"))?;
        let (zeros, after) = after
            .split_at_checked(padding(length))
            .ok_or(DecodeError::Entries("an op's padding is cut off"))?;
        if zeros.iter().any(|byte| *byte != 0) {
            return Err(DecodeError::Entries("an op's padding isn't zero"));
        }
        entries.push(Entry {
            client: ClientId(header.client.get()),
            request: RequestNumber(header.request.get()),
            op: op.into(),
        });
        rest = after;
    }
    if rest.is_empty() {
        Ok(entries)
    } else {
        Err(DecodeError::Entries("bytes follow the last entry"))
    }
}

fn padding(length: usize) -> usize {
    length.wrapping_neg() % ALIGNMENT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_entry() -> Vec<u8> {
        let entry = Entry {
            client: ClientId(1),
            request: RequestNumber(2),
            op: b"hello".as_slice().into(),
        };
        let mut body = Vec::new();
        put_entries(3, &[entry], &mut body);
        body
    }

    #[test]
    fn an_op_is_padded_to_eight_bytes() {
        let body = one_entry();
        assert_eq!(body.len(), ENTRY_HEADER_BYTES + 8);
        assert_eq!(&body[ENTRY_HEADER_BYTES..], b"hello\0\0\0");
        assert_eq!(&body[20..24], &[3, 0, 0, 0]);
    }

    #[test]
    fn padding_that_is_not_zero_is_refused() {
        let mut body = one_entry();
        *body.last_mut().unwrap() = 1;
        assert_eq!(
            take_entries(&body, 1),
            Err(DecodeError::Entries("an op's padding isn't zero"))
        );
    }

    #[test]
    fn the_count_has_to_be_exact() {
        let body = one_entry();
        assert_eq!(
            take_entries(&body, 0),
            Err(DecodeError::Entries("bytes follow the last entry"))
        );
        assert_eq!(
            take_entries(&body, u64::MAX),
            Err(DecodeError::Entries(
                "more entries than the body has room for"
            ))
        );
        assert_eq!(
            take_entries(&[body.as_slice(), &[0; 23]].concat(), 2),
            Err(DecodeError::Entries("an entry's header is cut off"))
        );
    }

    #[test]
    fn an_op_that_claims_too_much_is_refused() {
        let mut body = one_entry();
        body[16..20].copy_from_slice(&9u32.to_le_bytes());
        assert_eq!(
            take_entries(&body, 1),
            Err(DecodeError::Entries("an op is longer than the body"))
        );
    }
}
