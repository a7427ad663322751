//! Records: what files of the log are made of.
//!
//! ```text
//!  0  magic 32 | kind 8 | 0 24      4 bytes "ELOG"; Header, Write, Mark
//!  8  payload's length              bytes, without the padding
//! 16  synced                        the file's bytes that were durable when this record was written
//! 24  check                         SipHash-2-4 over file number, offset, the 24 bytes above, and all below
//! 32  payload                       postcard, padded with zeros to 8 bytes
//! ```
//! All little-endian. The check covers where the record stands, so that what an earlier file left behind is never taken
//! for it.

use std::hash::Hasher as _;

use electrode_vr::mutations::{Mutation, active};
use serde::Serialize;
use serde::de::DeserializeOwned;
use siphasher::sip::SipHasher24;

/// "ELOG".
const MAGIC: u32 = 0x474f_4c45;
/// Before the payload.
const FRONT_BYTES: usize = 32;
/// Records begin at multiples of this.
pub(crate) const ALIGNMENT: usize = 8;
/// Fixed: it finds damage, not forgery.
const KEY: (u64, u64) = (0x656c_6563_7472_6f64, 0x652d_6c6f_672d_6469);

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The first of a file.
    Header = 1,
    /// An [`electrode_vr::Write`].
    Write = 2,
    /// What is durable, in a file of its own.
    Mark = 3,
}

/// A record that was read.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    pub(crate) kind: u8,
    /// Bytes of the file that were durable when it was written.
    pub(crate) synced: u64,
    pub(crate) payload: &'a [u8],
    /// Where the next one begins.
    pub(crate) end: usize,
}

impl Record<'_> {
    /// The payload, if it is one of this kind.
    pub(crate) fn read<T: DeserializeOwned>(&self, kind: Kind) -> Option<T> {
        if self.kind != kind as u8 {
            return None;
        }
        postcard::from_bytes(self.payload).ok()
    }
}

/// Appends a record to `out`, which will stand at `offset` of file `number`.
pub(crate) fn encode(
    kind: Kind,
    number: u64,
    offset: u64,
    synced: u64,
    payload: &impl Serialize,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    out.extend_from_slice(&[0; FRONT_BYTES]);
    *out = postcard::to_extend(payload, std::mem::take(out)).expect("memory takes any record");
    let length = out.len() - start - FRONT_BYTES;
    out.resize(start + FRONT_BYTES + length.next_multiple_of(ALIGNMENT), 0);
    let front = &mut out[start..];
    front[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    front[4] = kind as u8;
    front[8..16].copy_from_slice(&(length as u64).to_le_bytes());
    front[16..24].copy_from_slice(&synced.to_le_bytes());
    let check = check(number, offset, front);
    front[24..32].copy_from_slice(&check.to_le_bytes());
}

/// The record at `offset` of a file's bytes, if a whole and undamaged one stands there.
pub(crate) fn decode(bytes: &[u8], number: u64, offset: usize) -> Option<Record<'_>> {
    let rest = bytes.get(offset..)?;
    let front = rest.get(..FRONT_BYTES)?;
    let word = |at: usize| u64::from_le_bytes(front[at..at + 8].try_into().expect("8 bytes"));
    if front[0..4] != MAGIC.to_le_bytes() {
        return None;
    }
    let length = usize::try_from(word(8)).ok()?;
    let end = FRONT_BYTES.checked_add(length.checked_next_multiple_of(ALIGNMENT)?)?;
    if end > rest.len() {
        return None;
    }
    let intact = check(number, offset as u64, &rest[..end]) == word(24);
    if !intact && !active(Mutation::TornTailTakenWhole) {
        return None;
    }
    Some(Record {
        kind: front[4],
        synced: word(16),
        payload: &rest[FRONT_BYTES..FRONT_BYTES + length],
        end: offset + end,
    })
}

fn check(number: u64, offset: u64, record: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new_with_keys(KEY.0, KEY.1);
    hasher.write(&number.to_le_bytes());
    hasher.write(&offset.to_le_bytes());
    hasher.write(&record[..24]);
    hasher.write(&record[FRONT_BYTES..]);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_where_it_stands_and_nowhere_else() {
        let mut bytes = vec![0; 16];
        encode(Kind::Write, 3, 16, 8, &"payload", &mut bytes);
        let record = decode(&bytes, 3, 16).unwrap();
        assert_eq!((record.synced, record.end), (8, bytes.len()));
        assert_eq!(
            record.read::<String>(Kind::Write).as_deref(),
            Some("payload")
        );
        assert_eq!(record.read::<String>(Kind::Header), None);
        assert!(decode(&bytes, 4, 16).is_none(), "another file");
        assert!(decode(&bytes[8..], 3, 8).is_none(), "another place");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let mut good = Vec::new();
        encode(Kind::Write, 0, 0, 0, &[7_u8; 8], &mut good);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(decode(&bad, 0, 0).is_none(), "byte {at}");
            assert!(decode(&good[..at], 0, 0).is_none(), "cut at {at}");
        }
    }

    #[test]
    fn lengths_that_lie_are_no_record() {
        for length in [u64::MAX, u64::MAX - 31, 1 << 40] {
            let mut bytes = Vec::new();
            encode(Kind::Write, 0, 0, 0, &1_u64, &mut bytes);
            bytes[8..16].copy_from_slice(&length.to_le_bytes());
            assert!(decode(&bytes, 0, 0).is_none());
        }
    }
}
