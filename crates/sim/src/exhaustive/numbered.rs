//! Values that get numbers: two are the same exactly if their numbers are, and whatever is worked out of them is worked out once.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::ops::Index;
use std::rc::Rc;

/// Quick, for numbers and fingerprints: nobody chooses them to collide.
#[derive(Default)]
pub(super) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_ne_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 29;
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }
}

pub(super) type Quick = BuildHasherDefault<Spread>;

/// Values and their numbers, from 0 on.
pub(super) struct Numbered<T: ?Sized> {
    values: Vec<Rc<T>>,
    numbers: HashMap<Rc<T>, u32, Quick>,
}

impl<T: ?Sized + Hash + Eq> Numbered<T> {
    /// With the value that has number 0.
    pub(super) fn beginning_with(first: Rc<T>) -> Numbered<T> {
        let mut numbered = Numbered {
            values: Vec::new(),
            numbers: HashMap::default(),
        };
        numbered.number(first);
        numbered
    }

    /// A value's number: a new one if it wasn't there.
    pub(super) fn number(&mut self, value: Rc<T>) -> u32 {
        if let Some(number) = self.numbers.get(&value) {
            return *number;
        }
        let number = u32::try_from(self.values.len()).expect("fewer than 2^32 values");
        self.numbers.insert(Rc::clone(&value), number);
        self.values.push(value);
        number
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }
}

impl<T: ?Sized> Index<u32> for Numbered<T> {
    type Output = Rc<T>;

    fn index(&self, number: u32) -> &Rc<T> {
        &self.values[number as usize]
    }
}
