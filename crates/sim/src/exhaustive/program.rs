//! `prepare` and `prepare_ok` as their steps between accesses to shared memory: what `electrode_fastpath::programs` says
//! in bytecode, said again in a form that can be copied, compared and stopped. `twin` holds one against the other.
//!
//! A step is one access that others could tell from its neighbours. The block is copied in one: who copies a block that is
//! being written has read a tail that is out of date, so its exchange fails (and the simulator writes blocks word by word).

#[cfg(test)]
mod twin;

use std::rc::Rc;

use electrode_fastpath::abi::{
    BATCH_OPS, FLAG_ANSWER, FLAG_COUNT, FLAG_STORE, OP_BITS, OP_MASK, SLOTS, slot,
};
use electrode_vr::mutations::{Mutation, active};
use electrode_vr::{Message, OpNumber, Prepare, ReplicaId};

use super::memory::{Record, State};

/// Tries for a slot's word before the ack is passed up.
const TRIES: u8 = 4;

/// What becomes of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// User space gets it.
    Pass,
    /// Nobody gets it.
    Drop,
    /// It was answered.
    Answered,
}

/// Where a program stands: what it does next, and what it knows for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    /// Reads the tail.
    Tail,
    /// Copies the block of the generation that the tail named, and judges; a Prepare that it takes gets its record.
    Block { tail: u64 },
    /// `prepare`: exchanges the tail.
    Exchange { tail: u64 },
    /// `prepare`: submits its record, and answers.
    Submit { view: u64 },
    /// `prepare`, of what is there already: looks again whether the generation still is the same, and answers.
    Again { tail: u64 },
    /// `prepare_ok`: reads the slot, which has to be opened like this.
    Slot { opened: u64, tries: u8 },
    /// `prepare_ok`: exchanges the slot's word.
    Mark { opened: u64, word: u64, tries: u8 },
}

/// One run of a program.
#[derive(Clone, Debug, Hash)]
pub(super) struct Program {
    pub(super) number: u8,
    pub(super) from: ReplicaId,
    pub(super) message: Rc<Message>,
    at: At,
    /// `prepare`: the tail was lost to another once.
    retried: bool,
    /// The ring has no room for it.
    full: bool,
}

impl Program {
    /// A program that takes up a packet. None for what `dispatch` passes by both.
    pub(super) fn new(
        number: u8,
        from: ReplicaId,
        message: &Rc<Message>,
        full: bool,
    ) -> Option<Program> {
        matches!(**message, Message::Prepare(_) | Message::PrepareOk { .. }).then(|| Program {
            number,
            from,
            message: Rc::clone(message),
            at: At::Tail,
            retried: false,
            full,
        })
    }

    /// One step; the verdict if it was the last.
    pub(super) fn step(&mut self, state: &mut State) -> Option<Verdict> {
        let message = Rc::clone(&self.message);
        match (&*message, self.at) {
            (_, At::Tail) => {
                self.at = At::Block { tail: state.tail };
                None
            }
            (Message::Prepare(prepare), At::Block { tail }) => self.judge(state, prepare, tail),
            (Message::Prepare(prepare), At::Exchange { tail }) => {
                self.exchange(state, prepare, tail)
            }
            (Message::Prepare(prepare), At::Submit { view }) => {
                for record in &mut state.ring {
                    if record.writer == Some(self.number) {
                        record.writer = None;
                    }
                }
                let control = state.blocks[(state.generation() & 1) as usize];
                let view = if active(Mutation::ViewReadAgain) {
                    control.view
                } else {
                    view
                };
                self.answer(state, view, prepare.last(), prepare.last());
                Some(Verdict::Answered)
            }
            (Message::Prepare(prepare), At::Again { tail }) => {
                let control = state.blocks[(tail >> OP_BITS & 1) as usize];
                let same = state.generation() == tail >> OP_BITS;
                if !same || control.flags & FLAG_ANSWER == 0 {
                    return Some(Verdict::Pass);
                }
                let newest = OpNumber(tail & OP_MASK);
                self.answer(state, prepare.view.0, prepare.last(), newest);
                Some(Verdict::Answered)
            }
            (Message::PrepareOk { view, op, last_op }, At::Block { tail }) => {
                self.judge_ack(state, tail, view.0, op.0, last_op.0)
            }
            (Message::PrepareOk { op, .. }, At::Slot { opened, tries }) => {
                let word = state.slot(op.0);
                if word & !0xffff != opened {
                    return Some(Verdict::Pass);
                }
                if word & (1 << self.from.0) != 0 {
                    return Some(Verdict::Drop);
                }
                self.at = At::Mark {
                    opened,
                    word,
                    tries,
                };
                None
            }
            (
                Message::PrepareOk { op, .. },
                At::Mark {
                    opened,
                    word,
                    tries,
                },
            ) => {
                let bit = 1 << self.from.0;
                let now = state.slot(op.0);
                if now & !0xffff != opened && active(Mutation::SlotByPlainOr) {
                    state.broken.get_or_insert(format!(
                        "an ack of op {op} marks a slot that was opened anew: {now:x}"
                    ));
                }
                if active(Mutation::SlotByPlainOr) {
                    state.set_slot(op.0, now | bit);
                    return Some(Verdict::Drop);
                }
                if now == word {
                    state.set_slot(op.0, word | bit);
                    return Some(Verdict::Drop);
                }
                if tries + 1 == TRIES {
                    return Some(Verdict::Pass);
                }
                self.at = At::Slot {
                    opened,
                    tries: tries + 1,
                };
                None
            }
            (message, at) => unreachable!("{message:?} at {at:?}"),
        }
    }

    /// `prepare`, up to its record.
    fn judge(&mut self, state: &mut State, prepare: &Prepare, tail: u64) -> Option<Verdict> {
        let (generation, last_op) = (tail >> OP_BITS, tail & OP_MASK);
        let control = state.blocks[(generation & 1) as usize];
        let fenced = if active(Mutation::KernelTakesFenced) {
            control.replicas == 0
        } else {
            control.generation != generation || control.flags & FLAG_STORE == 0
        };
        let (view, first, last) = (prepare.view.0, prepare.first.0, prepare.last().0);
        if fenced || (view > control.view && !active(Mutation::KernelTakesNewerView)) {
            return Some(Verdict::Pass);
        }
        if first == 0 || last > OP_MASK || last - first >= BATCH_OPS {
            return Some(Verdict::Drop);
        }
        if view < control.view && !active(Mutation::KernelTakesOlderView) {
            return Some(Verdict::Drop);
        }
        let any_view =
            active(Mutation::KernelTakesNewerView) || active(Mutation::KernelTakesOlderView);
        if u32::from(self.from.0) != control.primary && !any_view {
            return Some(Verdict::Drop);
        }
        if last <= last_op {
            self.at = At::Again { tail };
            return None;
        }
        if first > last_op + 1 && !active(Mutation::KernelTakesGap) {
            return Some(Verdict::Pass);
        }
        if self.full {
            if active(Mutation::AckBeforeStore) && state.tail == tail {
                state.tail = generation << OP_BITS | last;
            }
            return Some(Verdict::Pass);
        }
        state.ring.push_back(Record {
            generation,
            prepare: prepare.clone(),
            writer: Some(self.number),
            accepted: false,
        });
        self.at = At::Exchange { tail };
        None
    }

    /// `prepare`: the atomic that decides.
    fn exchange(&mut self, state: &mut State, prepare: &Prepare, tail: u64) -> Option<Verdict> {
        let tail = if active(Mutation::StaleGenerationAccepted) {
            state.tail
        } else {
            tail
        };
        let own = |record: &Record| record.writer == Some(self.number);
        if state.tail == tail {
            state.tail = (tail & !OP_MASK) | prepare.last().0;
            if let Some(record) = state.ring.iter_mut().find(|record| own(record)) {
                record.accepted = true;
            }
            self.check_accepted(state, prepare);
            self.at = At::Submit {
                view: prepare.view.0,
            };
            return None;
        }
        if active(Mutation::LostRaceSubmitted) {
            for record in &mut state.ring {
                if record.writer == Some(self.number) {
                    record.writer = None;
                }
            }
        } else {
            // What user space skips when it takes records; nobody else can tell it from one that never was.
            state.ring.retain(|record| !own(record));
        }
        if self.retried {
            return Some(Verdict::Pass);
        }
        self.retried = true;
        self.at = At::Tail;
        None
    }

    /// R2, R3: only for a normal backup of the view, which is the promised one.
    fn check_accepted(&self, state: &mut State, prepare: &Prepare) {
        let right = state.armed.is_some_and(|armed| {
            u64::from(armed.generation) == state.generation()
                && !armed.primary
                && armed.view == prepare.view
                && armed.view == state.promised
        });
        if !right {
            let (armed, promised) = (state.armed, state.promised);
            let (op, view) = (prepare.last(), prepare.view);
            state.broken.get_or_insert(format!(
                "the kernel accepts op {op} of view {view}; it was started for {armed:?}, and view {promised} is promised"
            ));
        }
    }

    fn answer(&self, state: &mut State, view: u64, op: OpNumber, last_op: OpNumber) {
        let view = electrode_vr::View(view);
        let message = Message::PrepareOk { view, op, last_op };
        state.answers.push((self.from, message));
    }

    /// `prepare_ok`, up to its slot.
    fn judge_ack(
        &mut self,
        state: &mut State,
        tail: u64,
        view: u64,
        op: u64,
        progress: u64,
    ) -> Option<Verdict> {
        let (generation, newest) = (tail >> OP_BITS, tail & OP_MASK);
        let control = state.blocks[(generation & 1) as usize];
        if control.generation != generation || control.flags & FLAG_COUNT == 0 {
            return Some(Verdict::Pass);
        }
        let from = u32::from(self.from.0);
        if from >= control.replicas || from == control.index {
            return Some(Verdict::Drop);
        }
        if !active(Mutation::KernelCountsOtherViews) && view != control.view {
            return Some(if view > control.view {
                Verdict::Pass
            } else {
                Verdict::Drop
            });
        }
        if op > progress || progress > newest {
            return Some(Verdict::Drop);
        }
        if newest - op >= u64::from(SLOTS) {
            return Some(Verdict::Pass);
        }
        // R9. Time is taken out, but what is heard anew shows.
        let word = generation << OP_BITS | progress;
        let heard = state.heard.entry(usize::from(self.from.0)).or_default();
        if heard.1 >> OP_BITS != generation || word > heard.1 {
            *heard = (word + 1, word);
        }
        let opened = slot(u16::try_from(generation).expect("16 bits"), op);
        self.at = At::Slot { opened, tries: 0 };
        None
    }
}
