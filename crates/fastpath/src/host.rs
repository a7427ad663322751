//! User space's half of the fast path: tail, blocks, slots and wake word, generic over the memory, so that the data plane
//! and the simulator run the same code and the simulator can interleave every access.
//!
//! Generations alternate: an even one is fenced (its block has no flags), an odd one armed. [`Host::fence`] moves an armed
//! generation to the next, fenced one; [`Host::arm`] moves on. Generation moves by exactly one, and the block of a
//! generation is written whole before the tail names it (docs/fast-path.md).

use std::collections::VecDeque;
use std::sync::atomic::{Ordering, fence};

use electrode_vr::mutations::{Mutation, active};
use electrode_vr::{OpNumber, ReplicaId, Time, View};

use crate::abi::{
    Block, FLAG_ANSWER, FLAG_COUNT, FLAG_STORE, GENERATION_STEP, OP_BITS, OP_MASK, PEERS, Peer,
    RECORD_NOTICE, RecordHeader, SLOTS, WAKE_ON_QUORUM, WAKE_ON_STORE, slot, tail,
};

/// One of the shared words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Word {
    /// [`crate::abi::Shared::tail`].
    Tail,
    /// [`crate::abi::Shared::wake`].
    Wake,
    /// The quorum slot of this index.
    Slot(usize),
    /// [`crate::abi::Heard::at`] of this replica.
    HeardAt(usize),
    /// [`crate::abi::Heard::op`] of this replica.
    HeardOp(usize),
}

/// The memory that the programs share with user space. Every access to a word is a sequentially consistent atomic.
pub trait Memory {
    /// Reads a word.
    fn load(&self, word: Word) -> u64;
    /// Writes a word.
    fn store(&self, word: Word, value: u64);
    /// Adds to a word; returns what was there.
    fn fetch_add(&self, word: Word, value: u64) -> u64;
    /// Writes `new` if `expected` is there; returns what was there.
    fn compare_exchange(&self, word: Word, expected: u64, new: u64) -> u64;
    /// Writes the block of this generation parity (0 or 1). No program reads it as valid before the tail names it.
    fn write_block(&self, which: usize, block: &Block);
    /// Whether the ring has a record (perhaps not yet submitted).
    fn ring_has_record(&self) -> bool;
}

/// What doesn't change from generation to generation.
#[derive(Clone, Debug, Hash)]
pub struct Identity {
    /// This replica.
    pub index: ReplicaId,
    /// The group's size.
    pub replicas: usize,
    /// The authenticator's key.
    pub key: [u8; 16],
    /// Everybody's address.
    pub peers: [Peer; PEERS],
    /// Whether `prepare` stores on a backup.
    pub store: bool,
    /// Whether it answers what it stored: not in disk mode, where stored is not yet durable.
    pub answer: bool,
    /// Whether `prepare_ok` counts on the primary.
    pub count: bool,
}

/// An undecided Prepare of the primary.
#[derive(Clone, Copy, Debug, Hash)]
struct OpenSlot {
    op: OpNumber,
    /// The acks that have been reported since it was opened.
    reported: u16,
}

/// User space's half. One per replica; one thread. (A copy is of use only where the memory is copied with it: to who explores
/// all states.)
#[derive(Clone, Debug, Hash)]
pub struct Host<M> {
    memory: M,
    identity: Identity,
    group: u64,
    generation: u16,
    armed: bool,
    primary: bool,
    /// Undecided, by op.
    open: VecDeque<OpenSlot>,
    /// Per replica, the last `heard` time that was reported.
    heard_at: [u64; PEERS],
}

impl<M: Memory> Host<M> {
    /// Takes over fresh (zeroed) memory: generation 0, fenced.
    #[must_use]
    pub fn new(memory: M, identity: Identity) -> Host<M> {
        let host = Host {
            memory,
            identity,
            group: 0,
            generation: 0,
            armed: false,
            primary: false,
            open: VecDeque::new(),
            heard_at: [0; PEERS],
        };
        host.memory.write_block(0, &host.block(0, 0, View(0)));
        host.memory.store(Word::Tail, tail(0, 0));
        host
    }

    /// The memory.
    #[must_use]
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// The memory, for what isn't arbitrated here (taking ring records).
    pub fn memory_mut(&mut self) -> &mut M {
        &mut self.memory
    }

    /// The group's name, for the next generation's block.
    pub fn set_group(&mut self, group: u64) {
        self.group = group;
    }

    /// The current generation; ring records of it, and no others, can come.
    #[must_use]
    pub fn generation(&self) -> u16 {
        self.generation
    }

    /// Whether programs may store or count.
    #[must_use]
    pub fn armed(&self) -> bool {
        self.armed
    }

    /// The message in a record that came out of the ring; None for a notice, which says only that the slots are worth a look.
    ///
    /// # Panics
    /// The ring holds what no program of ours writes: memory is corrupt, and going on could lose acknowledged ops.
    #[must_use]
    pub fn message<'a>(&self, record: &'a [u8]) -> Option<&'a [u8]> {
        const FRONT: usize = size_of::<RecordHeader>();
        assert!(
            record.len() >= FRONT,
            "a ring record of {} bytes",
            record.len()
        );
        let word = |at: usize| u64::from_ne_bytes(record[at..at + 8].try_into().expect("8 bytes"));
        let (generation, length) = (word(0), word(8));
        if generation == RECORD_NOTICE {
            return None;
        }
        // While fenced (even generations), the records of the armed generation before it are still coming.
        let stored_by = if self.armed {
            self.generation
        } else {
            self.generation.wrapping_sub(1)
        };
        assert_eq!(
            generation,
            u64::from(stored_by),
            "a ring record of another generation"
        );
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| FRONT.checked_add(length))
            .filter(|end| *end <= record.len())
            .expect("a ring record longer than its reservation");
        Some(&record[FRONT..end])
    }

    fn block(&self, generation: u16, flags: u64, view: View) -> Block {
        let word = |at: usize| {
            u64::from_le_bytes(self.identity.key[at..at + 8].try_into().expect("8 bytes"))
        };
        Block {
            generation: u64::from(generation),
            flags,
            view: view.0,
            group: self.group,
            key: [word(0), word(8)],
            index: u32::from(self.identity.index.0),
            replicas: u32::try_from(self.identity.replicas).expect("at most MAX_REPLICAS"),
            quorum: u32::try_from(self.identity.replicas / 2).expect("at most MAX_REPLICAS"),
            primary: u32::from(view.primary(self.identity.replicas).0),
            peers: self.identity.peers,
        }
    }

    /// Writes the block of the next generation, whole, before anything names it.
    fn write_next_block(&mut self, flags: u64, view: View) -> u16 {
        let next = self.generation.wrapping_add(1);
        let block = self.block(next, flags, view);
        // The block that is overwritten belongs to the generation before the current one. A program that is still copying it
        // cannot do anything with what it copied: its exchange expects the older tail. The fence keeps our stores behind the
        // atomic that ended that generation on every CPU.
        fence(Ordering::SeqCst);
        self.memory.write_block(usize::from(next & 1), &block);
        fence(Ordering::SeqCst);
        next
    }

    /// Ends the kernel's part at once: from here no program, however late, can advance the tail or mark a slot that counts.
    /// Returns the last op that the kernel accepted, exactly. The ring's records up to it must be taken next.
    pub fn fence(&mut self) -> OpNumber {
        let next = self.write_next_block(0, View(0));
        if active(Mutation::FenceLeavesTail) {
            // The next arm's store moves the generation by two at once; until then programs go on.
            let old = self.memory.load(Word::Tail);
            self.generation = next;
            self.armed = false;
            self.open.clear();
            return OpNumber(old & OP_MASK);
        }
        let old = self.memory.fetch_add(Word::Tail, GENERATION_STEP);
        assert_eq!(
            (old >> OP_BITS) as u16,
            self.generation,
            "only this host moves the generation"
        );
        self.generation = next;
        self.armed = false;
        self.open.clear();
        OpNumber(old & OP_MASK)
    }

    /// Starts the kernel's part for a view that is persisted and a log that is contiguous up to `last_op`.
    pub fn arm(&mut self, view: View, primary: bool, last_op: OpNumber) {
        assert!(!self.armed, "armed twice: every arm follows a fence");
        assert!(last_op.0 < OpNumber::LIMIT, "op numbers end at 2^48");
        let mut flags = 0;
        if primary && self.identity.count {
            flags |= FLAG_COUNT;
        }
        if !primary && self.identity.store {
            flags |= FLAG_STORE;
            if self.identity.answer || active(Mutation::KernelAnswersOnDisk) {
                flags |= FLAG_ANSWER;
            }
        }
        self.open.clear();
        if primary {
            // Nothing of an older generation is left, not even after 2^16 of them. An ack that comes between here and the
            // exchange below finds the tail fenced.
            for index in 0..SLOTS as usize {
                self.memory.store(Word::Slot(index), 0);
            }
        }
        let next = self.write_next_block(flags, view);
        // Fenced: no program moves the tail, so the store below races with nothing.
        self.memory.store(Word::Tail, tail(next, last_op.0));
        self.generation = next;
        self.armed = true;
        self.primary = primary;
    }

    /// A backup wants to append `after + 1 ..= last` itself. False when the kernel was first: take its records, then look again.
    pub fn claim(&mut self, after: OpNumber, last: OpNumber) -> bool {
        assert!(
            after < last && last.0 < OpNumber::LIMIT,
            "a claim is for at least one op"
        );
        let expected = if active(Mutation::ClaimFromTail) {
            self.memory.load(Word::Tail)
        } else {
            tail(self.generation, after.0)
        };
        self.memory
            .compare_exchange(Word::Tail, expected, tail(self.generation, last.0))
            == expected
    }

    /// The primary is about to send (again) the Prepare that ends with `op`.
    pub fn open_slot(&mut self, op: OpNumber) {
        assert!(
            self.armed && self.primary,
            "only an armed primary opens slots"
        );
        assert!(op.0 < OpNumber::LIMIT, "op numbers end at 2^48");
        let slots = u64::from(SLOTS);
        match self.open.iter_mut().find(|open| open.op == op) {
            Some(open) => open.reported = 0,
            None => {
                if active(Mutation::SlotReopenedWhileUndecided) {
                    self.open.retain(|open| open.op.0 % slots != op.0 % slots);
                }
                assert!(
                    self.open
                        .iter()
                        .all(|open| open.op.0 % slots != op.0 % slots),
                    "slot of op {op} is still undecided for another op"
                );
                let at = self.open.partition_point(|open| open.op < op);
                self.open.insert(at, OpenSlot { op, reported: 0 });
            }
        }
        self.memory.store(
            Word::Slot((op.0 % slots) as usize),
            slot(self.generation, op.0),
        );
        // The programs take the primary's newest op from the tail; nobody else moves it while FLAG_STORE is off.
        let newest = self.memory.load(Word::Tail) & OP_MASK;
        if op.0 > newest {
            self.memory.fetch_add(Word::Tail, op.0 - newest);
        }
    }

    /// Appends the open slots above `commit` that have acks which haven't been reported yet, newest first; forgets the others.
    pub fn acks(&mut self, commit: OpNumber, out: &mut Vec<(OpNumber, u16)>) {
        while self.open.front().is_some_and(|open| open.op <= commit) {
            self.open.pop_front();
        }
        for open in self.open.iter_mut().rev() {
            let acks = slot_acks(&self.memory, self.generation, open.op);
            if acks & !open.reported != 0 {
                open.reported |= acks;
                out.push((open.op, acks));
            }
        }
    }

    /// Appends whom the kernel heard since the last call: who, when (CLOCK_MONOTONIC), and the highest op acknowledged.
    pub fn heard(&mut self, out: &mut Vec<(ReplicaId, Time, OpNumber)>) {
        for index in 0..self.identity.replicas {
            let at = self.memory.load(Word::HeardAt(index));
            if at == self.heard_at[index] {
                continue;
            }
            self.heard_at[index] = at;
            let word = self.memory.load(Word::HeardOp(index));
            let present = (word >> OP_BITS) as u16 == self.generation;
            if present || active(Mutation::HeardOfOlderGenerations) {
                out.push((ReplicaId(index as u8), Time(at), OpNumber(word & OP_MASK)));
            }
        }
    }

    /// Says what shall wake user space from now. True when that has happened already: then don't sleep.
    pub fn before_sleep(&mut self, wake_on_store: bool) -> bool {
        let wake = WAKE_ON_QUORUM | if wake_on_store { WAKE_ON_STORE } else { 0 };
        // This store and the loads below against the program's exchange and its load of the word: one of the two sees the other.
        self.memory.store(Word::Wake, wake);
        let quorum = (self.identity.replicas / 2) as u32;
        let completed = self.open.iter().any(|open| {
            let acks = slot_acks(&self.memory, self.generation, open.op);
            acks & !open.reported != 0 && acks.count_ones() >= quorum
        });
        completed || (wake_on_store && self.memory.ring_has_record())
    }

    /// User space is awake and looks at slots and ring before it sleeps again.
    pub fn after_sleep(&mut self) {
        self.memory.store(Word::Wake, 0);
    }
}

/// The acks in the slot of `op`, none when it is not this generation's or not this op's.
fn slot_acks<M: Memory>(memory: &M, generation: u16, op: OpNumber) -> u16 {
    let word = memory.load(Word::Slot((op.0 % u64::from(SLOTS)) as usize));
    if word & !0xffff == slot(generation, op.0) {
        (word & 0xffff) as u16
    } else {
        0
    }
}
