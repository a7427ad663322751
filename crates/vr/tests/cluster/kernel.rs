//! A model of one replica's kernel part: the tail word, the ring, the quorum slots (docs/fast-path.md).
//!
//! It is a cousin of the real one, small enough to be read; the simulator runs the bytecode itself.

use std::collections::{BTreeMap, VecDeque};

use electrode_vr::{Message, OpNumber, Prepare, ReplicaId, View};

/// What becomes of a packet.
pub(crate) enum Verdict {
    /// User space gets it.
    Pass(Message),
    /// It is taken or dropped; perhaps there is an answer to its sender.
    Taken(Option<Message>),
}

/// The block that the tail names.
#[derive(Clone, Copy, Debug)]
struct Block {
    view: View,
    primary: bool,
}

#[derive(Debug)]
pub(crate) struct Kernel {
    replicas: usize,
    slots: u64,
    ring_records: usize,
    /// In disk mode it stores, and user space answers.
    answers: bool,
    /// None: disabled.
    block: Option<Block>,
    pub(crate) tail: OpNumber,
    pub(crate) ring: VecDeque<Prepare>,
    /// Slot number to (op, acks).
    open: BTreeMap<u64, (OpNumber, u16)>,
    heard: BTreeMap<ReplicaId, OpNumber>,
}

impl Kernel {
    pub(crate) fn new(replicas: usize, slots: u64, ring_records: usize, answers: bool) -> Kernel {
        Kernel {
            replicas,
            slots,
            ring_records,
            answers,
            block: None,
            tail: OpNumber(0),
            ring: VecDeque::new(),
            open: BTreeMap::new(),
            heard: BTreeMap::new(),
        }
    }

    pub(crate) fn fence(&mut self) -> OpNumber {
        assert!(self.block.take().is_some(), "fenced twice");
        self.open.clear();
        self.heard.clear();
        self.tail
    }

    pub(crate) fn arm(&mut self, view: View, primary: bool, last_op: OpNumber) {
        assert!(self.block.is_none(), "armed without a fence before");
        assert!(self.ring.is_empty(), "armed over records that nobody took");
        self.block = Some(Block { view, primary });
        self.tail = last_op;
    }

    pub(crate) fn armed(&self) -> bool {
        self.block.is_some()
    }

    /// Compare-and-exchange of the tail's op.
    pub(crate) fn claim(&mut self, after: OpNumber, last: OpNumber) -> bool {
        assert!(
            self.block.is_some_and(|block| !block.primary),
            "claimed by no armed backup"
        );
        assert!(last > after, "claimed nothing");
        let won = self.tail == after;
        if won {
            self.tail = last;
        }
        won
    }

    pub(crate) fn open_slot(&mut self, op: OpNumber, commit: OpNumber) {
        assert!(
            self.block.is_some_and(|block| block.primary),
            "a slot opened by no primary"
        );
        let old = self.open.insert(op.0 % self.slots, (op, 0));
        let undecided = old.is_some_and(|(old, _)| old != op && old > commit);
        assert!(
            !undecided,
            "the slot of {op} was opened over the undecided {old:?}"
        );
    }

    pub(crate) fn acks(&self, commit: OpNumber) -> Vec<(OpNumber, u16)> {
        self.open
            .values()
            .copied()
            .filter(|(op, acks)| *op > commit && *acks != 0)
            .collect()
    }

    pub(crate) fn take_heard(&mut self) -> BTreeMap<ReplicaId, OpNumber> {
        std::mem::take(&mut self.heard)
    }

    /// `no_room`: the reservation fails. `pass_old`: the one per interval of an older view.
    pub(crate) fn ingress(
        &mut self,
        from: ReplicaId,
        message: Message,
        no_room: bool,
        pass_old: bool,
    ) -> Verdict {
        let Some(block) = self.block else {
            return Verdict::Pass(message);
        };
        match message {
            Message::Prepare(prepare) if !block.primary => {
                self.prepare(from, block, prepare, no_room, pass_old)
            }
            Message::PrepareOk { view, op, .. } if block.primary && view == block.view => {
                self.prepare_ok(from, op, message)
            }
            message => Verdict::Pass(message),
        }
    }

    fn prepare(
        &mut self,
        from: ReplicaId,
        block: Block,
        prepare: Prepare,
        no_room: bool,
        pass_old: bool,
    ) -> Verdict {
        let (view, last) = (prepare.view, prepare.last());
        if view.primary(self.replicas) != from || view > block.view {
            return Verdict::Pass(Message::Prepare(prepare));
        }
        if view < block.view {
            return if pass_old {
                Verdict::Pass(Message::Prepare(prepare))
            } else {
                Verdict::Taken(None)
            };
        }
        if last > self.tail {
            let gap = prepare.first > self.tail.next();
            if gap || no_room || self.ring.len() >= self.ring_records {
                return Verdict::Pass(Message::Prepare(prepare));
            }
            self.tail = last;
            self.ring.push_back(prepare.clone());
        }
        if !self.answers {
            return Verdict::Pass(Message::Prepare(prepare));
        }
        Verdict::Taken(Some(Message::PrepareOk {
            view,
            op: last,
            last_op: self.tail,
        }))
    }

    fn prepare_ok(&mut self, from: ReplicaId, op: OpNumber, message: Message) -> Verdict {
        let Some((open, acks)) = self.open.get_mut(&(op.0 % self.slots)) else {
            return Verdict::Pass(message);
        };
        if *open != op {
            return Verdict::Pass(message);
        }
        *acks |= 1 << from.0;
        let completes = acks.count_ones() as usize == self.replicas / 2;
        let heard = self.heard.entry(from).or_default();
        *heard = op.max(*heard);
        if completes {
            Verdict::Pass(message)
        } else {
            Verdict::Taken(None)
        }
    }
}
