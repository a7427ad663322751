//! The bytecode's maps as user space's half sees them.

use std::cell::RefCell;
use std::rc::Rc;

use electrode_fastpath::abi::Block;
use electrode_fastpath::host::{Memory, Word};

use crate::nic::Engine;

/// The bytecode's maps as user space's half sees them.
#[derive(Clone)]
pub(super) struct Maps(pub(super) Rc<RefCell<Engine>>);

impl Memory for Maps {
    fn load(&self, word: Word) -> u64 {
        self.0.borrow().load(word)
    }

    fn store(&self, word: Word, value: u64) {
        self.0.borrow_mut().store(word, value);
    }

    fn fetch_add(&self, word: Word, value: u64) -> u64 {
        self.0.borrow_mut().fetch_add(word, value)
    }

    fn compare_exchange(&self, word: Word, expected: u64, new: u64) -> u64 {
        self.0.borrow_mut().compare_exchange(word, expected, new)
    }

    fn write_block(&self, which: usize, block: &Block) {
        for word in 0..size_of::<Block>() / 8 {
            self.0.borrow_mut().write_block_word(which, word, block);
        }
    }

    fn ring_has_record(&self) -> bool {
        self.0.borrow().ring_used() > 0
    }
}
