//! The ring buffer, in the kernel's layout: positions count bytes for ever, each record has an 8-byte header.
//!
//! ```text
//!   consumer <= pending <= producer <= consumer + size - 1
//!   record: length u32 (bit 31 busy, bit 30 discarded), page offset u32 (0 here), the bytes, padding to 8
//! ```

use super::Errno;

/// `BPF_RINGBUF_BUSY_BIT`.
const BUSY: u32 = 1 << 31;
/// `BPF_RINGBUF_DISCARD_BIT`.
const DISCARD: u32 = 1 << 30;
/// `BPF_RINGBUF_HDR_SZ`.
const HEADER: u64 = 8;

const NO_WAKEUP: u64 = 1;
const FORCE_WAKEUP: u64 = 2;

/// A record that was taken from a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingRecord {
    /// The ring's position where its header began.
    pub position: u64,
    /// What the program wrote.
    pub bytes: Vec<u8>,
}

/// The ring.
#[derive(Debug)]
pub(in super::super) struct Ring {
    data: Vec<u8>,
    pub(in super::super) consumer: u64,
    pub(in super::super) producer: u64,
    /// The first record that is still reserved: what is behind it can't be given out again.
    pending: u64,
    /// How often the reader was woken.
    pub(in super::super) wakeups: u64,
}

/// Where a reserved record's bytes are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reservation {
    /// Of its header.
    pub(in super::super) position: u64,
    /// Bytes asked for.
    pub(crate) length: u32,
}

impl Ring {
    pub(super) fn new(size: usize) -> Ring {
        Ring {
            data: vec![0; size],
            consumer: 0,
            producer: 0,
            pending: 0,
            wakeups: 0,
        }
    }

    pub(in super::super) fn size(&self) -> u64 {
        self.data.len() as u64
    }

    /// `__bpf_ringbuf_reserve`.
    pub(in super::super) fn reserve(&mut self, length: u64) -> Option<Reservation> {
        // RINGBUF_MAX_RECORD_SZ is a quarter of what 32 bits count.
        if length > u64::from(u32::MAX / 4) {
            return None;
        }
        let bytes = (length + HEADER).next_multiple_of(8);
        let after = self.producer + bytes;
        while self.pending < self.producer {
            let header = self.header(self.pending);
            if header & BUSY != 0 {
                break;
            }
            self.pending += record_bytes(header);
        }
        let most = self.size() - 1;
        if after - self.consumer > most || after - self.pending > most {
            return None;
        }
        let position = self.producer;
        let length = length as u32;
        self.set_header(position, length | BUSY);
        self.producer = after;
        Some(Reservation { position, length })
    }

    /// `bpf_ringbuf_commit`; whether it woke the reader.
    pub(in super::super) fn commit(
        &mut self,
        record: Reservation,
        discard: bool,
        flags: u64,
    ) -> bool {
        let bit = if discard { DISCARD } else { 0 };
        self.set_header(record.position, record.length | bit);
        let caught_up = self.consumer == record.position;
        let wakes = flags & FORCE_WAKEUP != 0 || (caught_up && flags & NO_WAKEUP == 0);
        self.wakeups += u64::from(wakes);
        wakes
    }

    /// The next submitted record; discarded ones are skipped, a reserved one stops the reader.
    pub(in super::super) fn consume(&mut self) -> Option<RingRecord> {
        while self.consumer < self.producer {
            let position = self.consumer;
            let header = self.header(position);
            if header & BUSY != 0 {
                return None;
            }
            self.consumer += record_bytes(header);
            if header & DISCARD == 0 {
                let length = header & !(BUSY | DISCARD);
                let mut bytes = vec![0; length as usize];
                self.read(position + HEADER, &mut bytes);
                return Some(RingRecord { position, bytes });
            }
        }
        None
    }

    /// `bpf_ringbuf_query`.
    pub(in super::super) fn query(&self, what: u64) -> u64 {
        match what {
            0 => self.producer - self.consumer,
            1 => self.size(),
            2 => self.consumer,
            3 => self.producer,
            _ => 0,
        }
    }

    /// `bpf_ringbuf_output`; whether it woke the reader.
    pub(in super::super) fn output(&mut self, bytes: &[u8], flags: u64) -> Result<bool, Errno> {
        if flags & !(NO_WAKEUP | FORCE_WAKEUP) != 0 {
            return Err(Errno::EINVAL);
        }
        let record = self.reserve(bytes.len() as u64).ok_or(Errno::EAGAIN)?;
        self.write(record.position + HEADER, bytes);
        Ok(self.commit(record, false, flags))
    }

    /// Reads a record's bytes from `at` on.
    pub(in super::super) fn read_record(&self, record: Reservation, at: usize, out: &mut [u8]) {
        self.read(record.position + HEADER + at as u64, out);
    }

    /// Writes a record's bytes from `at` on.
    pub(in super::super) fn write_record(&mut self, record: Reservation, at: usize, bytes: &[u8]) {
        self.write(record.position + HEADER + at as u64, bytes);
    }

    fn header(&self, position: u64) -> u32 {
        let mut bytes = [0; 4];
        self.read(position, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn set_header(&mut self, position: u64, length: u32) {
        self.write(position, &u64::from(length).to_le_bytes());
    }

    /// A ring's pages are mapped twice in a row in the kernel; here what runs over the end goes on at the start.
    fn read(&self, position: u64, out: &mut [u8]) {
        let at = self.index(position);
        let first = out.len().min(self.data.len() - at);
        let (head, tail) = out.split_at_mut(first);
        head.copy_from_slice(&self.data[at..at + first]);
        tail.copy_from_slice(&self.data[..tail.len()]);
    }

    fn write(&mut self, position: u64, bytes: &[u8]) {
        let at = self.index(position);
        let first = bytes.len().min(self.data.len() - at);
        let (head, tail) = bytes.split_at(first);
        self.data[at..at + first].copy_from_slice(head);
        self.data[..tail.len()].copy_from_slice(tail);
    }

    fn index(&self, position: u64) -> usize {
        (position & (self.size() - 1)) as usize
    }
}

/// Bytes from a record's header to the next one.
fn record_bytes(header: u32) -> u64 {
    (u64::from(header & !(BUSY | DISCARD)) + HEADER).next_multiple_of(8)
}
