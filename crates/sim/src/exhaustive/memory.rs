//! The memory that one replica's programs share with its user space, and the programs that stand still in the middle.
//!
//! `electrode_fastpath::host` works on it as on the real one. Before each of its accesses that can matter to a program, those
//! that stand still may go on, in every way ([`Choices`]).

use std::cell::{Ref, RefCell, RefMut};
use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use electrode_fastpath::abi::{Block, OP_BITS, OP_MASK, SLOTS};
use electrode_fastpath::host::{Memory, Word};
use electrode_vr::{Message, OpNumber, Prepare, ReplicaId, Time, View};

use super::choices::Choices;
use super::program::{Program, Verdict};

/// What a program reads of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Control {
    pub(super) generation: u64,
    pub(super) flags: u64,
    pub(super) view: u64,
    pub(super) primary: u32,
    pub(super) replicas: u32,
    pub(super) index: u32,
}

/// A ring record.
#[derive(Clone, Debug, Hash)]
pub(super) struct Record {
    pub(super) generation: u64,
    pub(super) prepare: Prepare,
    /// The program that hasn't submitted it yet.
    pub(super) writer: Option<u8>,
    /// The exchange that makes it count succeeded.
    pub(super) accepted: bool,
}

/// What the kernel's part was last started for, for the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Armed {
    pub(super) generation: u16,
    pub(super) view: View,
    pub(super) primary: bool,
}

/// Words, blocks, ring, and programs that stand still.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct State {
    pub(super) tail: u64,
    wake: u64,
    pub(super) blocks: [Control; 2],
    /// Those that aren't 0.
    pub(super) slots: BTreeMap<usize, u64>,
    pub(super) heard: BTreeMap<usize, (u64, u64)>,
    pub(super) ring: VecDeque<Record>,
    pub(super) programs: Vec<Program>,
    /// What programs sent in this event.
    pub(super) answers: Vec<(ReplicaId, Message)>,
    /// None while fenced.
    pub(super) armed: Option<Armed>,
    /// The view on disk.
    pub(super) promised: View,
    /// The first rule that a program broke.
    pub(super) broken: Option<String>,
}

impl State {
    /// The last op of the tail word.
    pub(super) fn last_op(&self) -> OpNumber {
        OpNumber(self.tail & OP_MASK)
    }

    /// The tail word's generation.
    pub(super) fn generation(&self) -> u64 {
        self.tail >> OP_BITS
    }

    pub(super) fn slot(&self, op: u64) -> u64 {
        let index = usize::try_from(op % u64::from(SLOTS)).expect("few slots");
        self.slots.get(&index).copied().unwrap_or_default()
    }

    pub(super) fn set_slot(&mut self, op: u64, word: u64) {
        let index = usize::try_from(op % u64::from(SLOTS)).expect("few slots");
        self.slots.insert(index, word);
    }

    /// How far log and ring reach without a gap, if the log ends at `log`.
    pub(super) fn stored_through(&self, log: OpNumber) -> OpNumber {
        let accepted = self.ring.iter().filter(|record| record.accepted);
        accepted.fold(log, |end, record| {
            if record.prepare.first <= end.next() {
                end.max(record.prepare.last())
            } else {
                end
            }
        })
    }

    /// Takes out what no program and nobody in user space will ever look at: nothing stands still, so only the current
    /// generation's block is read; slots are read while an armed primary waits for their op; and what was heard is news only when
    /// it is more than the core knows. Programs of which a rule was taken out might look.
    pub(super) fn forget_unread(&mut self, commit: OpNumber, acked: &[(Time, OpNumber)]) {
        if !self.programs.is_empty() || cfg!(feature = "mutations") {
            return;
        }
        let generation = self.generation();
        self.blocks[(generation & 1 ^ 1) as usize] = Control::default();
        if !self.armed.is_some_and(|armed| armed.primary) {
            self.slots.clear();
            self.heard.clear();
            return;
        }
        let awaited = |word: u64| word >> 16 & 0xffff_ffff > commit.0;
        self.slots.retain(|_, word| awaited(*word));
        let news = |of: usize, word: u64| OpNumber(word & OP_MASK) > acked[of].1;
        self.heard.retain(|of, (_, word)| news(*of, *word));
    }

    /// A free number for a program.
    pub(super) fn free_number(&self) -> u8 {
        let taken = |number: &u8| {
            self.programs
                .iter()
                .any(|program| program.number == *number)
        };
        (0..=u8::MAX)
            .find(|number| !taken(number))
            .expect("few programs stand still")
    }

    /// One of the programs that stand still takes a step.
    pub(super) fn advance(&mut self, at: usize) -> Option<(Program, Verdict)> {
        let mut program = self.programs.remove(at);
        match program.step(self) {
            Some(verdict) => Some((program, verdict)),
            None => {
                self.programs.insert(at, program);
                None
            }
        }
    }
}

/// The memory as user space's half sees it.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    state: RefCell<State>,
    choices: Rc<Choices>,
}

impl Hash for Shared {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.state.borrow().hash(hasher);
    }
}

impl Shared {
    pub(super) fn new(choices: Rc<Choices>, promised: View) -> Shared {
        let state = State {
            promised,
            ..State::default()
        };
        Shared {
            state: RefCell::new(state),
            choices,
        }
    }

    pub(super) fn state(&self) -> Ref<'_, State> {
        self.state.borrow()
    }

    pub(super) fn state_mut(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    /// Programs that stand still go on, or not, before an access. (What one of them passes up then is as good as lost: it may
    /// come again as another copy of the same packet.)
    pub(super) fn interleave(&self) {
        let mut state = self.state.borrow_mut();
        while !state.programs.is_empty() {
            match self.choices.choose(1 + state.programs.len()) {
                0 => return,
                program => drop(state.advance(program - 1)),
            }
        }
    }

    /// The next record that is submitted, in order.
    pub(super) fn take_record(&self) -> Option<Record> {
        self.interleave();
        let mut state = self.state.borrow_mut();
        state
            .ring
            .front()
            .filter(|record| record.writer.is_none())?;
        state.ring.pop_front()
    }

    /// User space waits for a record that the kernel promised. It gets at none before the ring's first one is submitted or
    /// discarded, so the program that holds that one goes on. False when there is none.
    pub(super) fn run_promised(&self) -> bool {
        let mut state = self.state.borrow_mut();
        let Some(writer) = state.ring.front().and_then(|record| record.writer) else {
            return false;
        };
        let holds = |program: &Program| program.number == writer;
        let at = state.programs.iter().position(holds);
        state.advance(at.expect("who hasn't submitted its record stands still"));
        true
    }
}

impl Memory for Shared {
    fn load(&self, word: Word) -> u64 {
        match word {
            Word::Tail | Word::Slot(_) => self.interleave(),
            Word::Wake | Word::HeardAt(_) | Word::HeardOp(_) => {}
        }
        let state = self.state.borrow();
        let heard = |index| state.heard.get(&index).copied().unwrap_or_default();
        match word {
            Word::Tail => state.tail,
            Word::Wake => state.wake,
            Word::Slot(index) => state.slots.get(&index).copied().unwrap_or_default(),
            Word::HeardAt(index) => heard(index).0,
            Word::HeardOp(index) => heard(index).1,
        }
    }

    fn store(&self, word: Word, value: u64) {
        let matters = match word {
            // An arming primary clears a thousand slots; only those that aren't clear already make a difference.
            Word::Slot(index) => value != 0 || self.state.borrow().slots.contains_key(&index),
            Word::Tail => true,
            Word::Wake | Word::HeardAt(_) | Word::HeardOp(_) => false,
        };
        if matters {
            self.interleave();
        }
        let mut state = self.state.borrow_mut();
        match word {
            Word::Tail => state.tail = value,
            Word::Wake => state.wake = value,
            Word::Slot(index) if value == 0 => {
                state.slots.remove(&index);
            }
            Word::Slot(index) => {
                state.slots.insert(index, value);
            }
            Word::HeardAt(_) | Word::HeardOp(_) => unreachable!("programs alone write it"),
        }
    }

    fn fetch_add(&self, word: Word, value: u64) -> u64 {
        let old = self.load(word);
        assert_eq!(word, Word::Tail, "user space adds to the tail alone");
        self.state.borrow_mut().tail = old.wrapping_add(value);
        old
    }

    fn compare_exchange(&self, word: Word, expected: u64, new: u64) -> u64 {
        let old = self.load(word);
        assert_eq!(word, Word::Tail, "user space exchanges the tail alone");
        if old == expected {
            self.state.borrow_mut().tail = new;
        }
        old
    }

    fn write_block(&self, which: usize, block: &Block) {
        self.interleave();
        self.state.borrow_mut().blocks[which] = Control {
            generation: block.generation,
            flags: block.flags,
            view: block.view,
            primary: block.primary,
            replicas: block.replicas,
            index: block.index,
        };
    }

    fn ring_has_record(&self) -> bool {
        !self.state.borrow().ring.is_empty()
    }
}
