//! Where frames are that were held back, until it is their time.
//!
//! A thread of its own on the switch: it takes frames from the program's ring, keeps them, and sends them on by running the
//! program [`sender`](crate::program::sender) once for each.

use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use electrode_lab::{Lab, Loaded, Ring};

use crate::program::{self, BLOCK, BLOCKS, DELAY, LATE, OVERTAKEN, REORDER};

/// Frames that are held back at most; beyond it the oldest goes at once.
const MAX_HELD: usize = 4096;

/// A frame that nobody overtakes goes on after this.
const OVERTAKING: Duration = Duration::from_millis(150);

/// How long the thread sleeps when nothing happens: it looks whether it is to end.
const IDLE: Duration = Duration::from_millis(100);

/// What became of frames that were held back.
#[derive(Debug, Default)]
pub(crate) struct Released {
    /// They were sent on.
    pub(crate) sent: AtomicU64,
    /// Of those, the ones that another frame had overtaken.
    pub(crate) overtaken: AtomicU64,
}

/// The thread. Dropping it forgets what it holds.
#[derive(Debug)]
pub(crate) struct DelayLine {
    pub(crate) released: Arc<Released>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl DelayLine {
    /// Starts it on the switch of this lab, to read from this ring.
    pub(crate) fn start(lab: Arc<Lab>, ring: Ring) -> Result<DelayLine> {
        let sender = Loaded::new(program::sender().context("building the sender")?)?;
        let released = Arc::new(Released::default());
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("delay-line".to_owned());
        let (counts, stopped) = (Arc::clone(&released), Arc::clone(&stop));
        let thread = thread.spawn(move || {
            lab.enter_switch()?;
            // It may keep nothing of the lab alive, or the lab would never be cleaned up.
            drop(lab);
            Keeping {
                ring,
                sender,
                released: counts,
                due: BinaryHeap::new(),
                frames: BTreeMap::new(),
                waiting: HashMap::new(),
                next: 0,
            }
            .run(&stopped)
        })?;
        Ok(DelayLine {
            released,
            stop,
            thread: Some(thread),
        })
    }

    /// Whether it still works, or why not.
    pub(crate) fn check(&mut self) -> Result<()> {
        match &self.thread {
            Some(thread) if thread.is_finished() => self.end(),
            _ => Ok(()),
        }
    }

    fn end(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(done)) => done.context("sending on what was held back"),
            Some(Err(_)) => Err(anyhow!("the thread of the delay line panicked")),
        }
    }
}

impl Drop for DelayLine {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("electrode-chaos: {error:#}");
        }
    }
}

/// A frame and where it goes.
struct Frame {
    port: u64,
    bytes: Vec<u8>,
}

/// The thread's own.
struct Keeping {
    ring: Ring,
    sender: Loaded,
    released: Arc<Released>,
    /// When which frame goes; the earliest first.
    due: BinaryHeap<std::cmp::Reverse<(Instant, u64)>>,
    frames: BTreeMap<u64, Frame>,
    /// Per pair of hosts the frames that wait for one that overtakes them.
    waiting: HashMap<u32, Vec<u64>>,
    next: u64,
}

impl Keeping {
    fn run(mut self, stop: &AtomicBool) -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            let next = self.due.peek().map(|due| due.0.0);
            let sleep = next.map_or(IDLE, |at| at.saturating_duration_since(now).min(IDLE));
            self.ring.wait(sleep)?;
            while let Some(record) = self.ring.next_record() {
                self.take(&record)?;
            }
            let now = Instant::now();
            while let Some(std::cmp::Reverse((at, number))) = self.due.peek().copied() {
                if at > now && self.frames.len() <= MAX_HELD {
                    break;
                }
                self.due.pop();
                self.send(number)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, record: &[u8]) -> Result<()> {
        let front = Front::of(record).context("a record without a front")?;
        if front.kind == OVERTAKEN {
            for number in self.waiting.remove(&front.pair).unwrap_or_default() {
                if self.send(number)? {
                    self.released.overtaken.fetch_add(1, Ordering::Relaxed);
                }
            }
            return Ok(());
        }
        let mut bytes = frame(record, front.length).context("a record without its frame")?;
        complete_checksum(&mut bytes);
        let number = self.next;
        self.next += 1;
        let hold = match front.kind {
            REORDER => {
                self.waiting.entry(front.pair).or_default().push(number);
                OVERTAKING
            }
            // A few are held back for longer than a resend takes.
            DELAY if front.draw.is_multiple_of(16) => Duration::from_millis(50 + front.draw % 250),
            DELAY => Duration::from_micros(500 + front.draw % 40_000),
            // From 10 ms to 5 s: into another view, or another life of a replica.
            LATE => Duration::from_millis(10 << (front.draw % 10)),
            kind => return Err(anyhow!("a record of the unknown kind {kind}")),
        };
        let port = front.port.into();
        self.frames.insert(number, Frame { port, bytes });
        self.due
            .push(std::cmp::Reverse((Instant::now() + hold, number)));
        Ok(())
    }

    /// Sends a frame, unless it was sent before.
    fn send(&mut self, number: u64) -> Result<bool> {
        let Some(frame) = self.frames.remove(&number) else {
            return Ok(false);
        };
        self.sender.set::<u64>(program::TARGET, 0, frame.port)?;
        self.sender.run_once(&frame.bytes)?;
        self.released.sent.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }
}

/// [`program::Front`], read from bytes.
struct Front {
    kind: u32,
    pair: u32,
    port: u32,
    length: usize,
    draw: u64,
}

impl Front {
    fn of(record: &[u8]) -> Option<Front> {
        let word = |at: usize| Some(u32::from_le_bytes(record.get(at..at + 4)?.try_into().ok()?));
        Some(Front {
            kind: word(0)?,
            pair: word(4)?,
            port: word(8)?,
            length: usize::try_from(word(12)?).ok()?,
            draw: u64::from_le_bytes(record.get(16..24)?.try_into().ok()?),
        })
    }
}

/// The frame of a record: its whole blocks, and what follows them from the record's tail.
fn frame(record: &[u8], length: usize) -> Option<Vec<u8>> {
    const BLOCKS_AT: usize = size_of::<program::Front>();
    const TAIL_AT: usize = BLOCKS_AT + BLOCK * BLOCKS;
    let whole = length / BLOCK * BLOCK;
    let mut bytes = record.get(BLOCKS_AT..BLOCKS_AT + whole)?.to_vec();
    let tail = record.get(TAIL_AT..TAIL_AT + BLOCK)?;
    bytes.extend(tail.get(BLOCK - (length - whole)..)?);
    Some(bytes)
}

/// Makes the UDP checksum valid: a local sender leaves the pseudo-header's sum alone there, with a note that the device is to
/// complete it, and that note isn't among the bytes. Over IPv4 no sum is legal.
fn complete_checksum(frame: &mut [u8]) {
    const UDP: u8 = 17;
    let at = |at: usize| frame.get(at).copied();
    match (at(12), at(13)) {
        (Some(0x08), Some(0x00))
            if at(14) == Some(0x45)
                && at(23) == Some(UDP)
                && at(20).is_some_and(|high| high & 0x1f == 0)
                && at(21) == Some(0) =>
        {
            if let Some(sum) = frame.get_mut(40..42) {
                sum.fill(0);
            }
        }
        (Some(0x86), Some(0xdd)) if at(20) == Some(UDP) && frame.len() >= 62 => {
            frame[60..62].fill(0);
            // Addresses, length and number of the pseudo-header, then the datagram (RFC 8200, 8.1).
            let length = frame.len() - 54;
            let words = frame[22..]
                .chunks(2)
                .map(|pair| u64::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u64::from));
            let mut sum = words.sum::<u64>() + length as u64 + u64::from(UDP);
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            let sum = match !u16::try_from(sum).unwrap_or(u16::MAX) {
                0 => u16::MAX,
                sum => sum,
            };
            frame[60..62].copy_from_slice(&sum.to_be_bytes());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_put_together_from_blocks_and_tail() {
        for length in [64, 65, 127, 128, 1500] {
            let sent: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let mut record = vec![0; size_of::<program::Held>()];
            let whole = length / BLOCK * BLOCK;
            record[24..24 + whole].copy_from_slice(&sent[..whole]);
            record[24 + BLOCK * BLOCKS..].copy_from_slice(&sent[length - BLOCK..]);
            assert_eq!(frame(&record, length), Some(sent));
        }
    }

    #[test]
    fn a_datagram_over_ipv6_gets_the_sum_that_its_receiver_wants() {
        let mut frame = vec![0u8; 14 + 40 + 8 + 5];
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        frame[14] = 0x60;
        frame[18..20].copy_from_slice(&13u16.to_be_bytes());
        frame[20] = 17;
        frame[22..54].copy_from_slice(&[0xfd; 32]);
        frame[54..60].copy_from_slice(&[0x1b, 0xa5, 0xc0, 0x01, 0, 13]);
        frame[62..].copy_from_slice(b"hello");
        complete_checksum(&mut frame);
        // What a receiver adds up is all ones (RFC 1071).
        let mut sum = 13u32 + 17;
        for pair in frame[22..].chunks(2) {
            sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |byte| u32::from(*byte));
        }
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }
}
