//! Elements by key: places are handed out in order and kept until the element goes.

use std::collections::{HashMap, VecDeque};

/// Keys and the places of their elements.
#[derive(Debug, Default)]
pub(in super::super) struct Slab {
    places: HashMap<Box<[u8]>, u32>,
    elements: Vec<Element>,
    /// Places that are free, longest free first, so that stale pointers see their old value for long.
    free: VecDeque<u32>,
    clock: u64,
}

#[derive(Debug)]
struct Element {
    /// None while the place is free.
    key: Option<Box<[u8]>>,
    /// When it was last found or inserted.
    used: u64,
}

impl Slab {
    pub(super) fn new() -> Slab {
        Slab::default()
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn find(&mut self, key: &[u8]) -> Option<u32> {
        let place = *self.places.get(key)?;
        self.touch(place);
        Some(place)
    }

    /// The key must not be there.
    pub(super) fn insert(&mut self, key: &[u8]) -> u32 {
        let key: Box<[u8]> = key.into();
        let element = Element {
            key: Some(key.clone()),
            used: 0,
        };
        let place = match self.free.pop_front() {
            Some(place) => {
                self.elements[place as usize] = element;
                place
            }
            None => {
                self.elements.push(element);
                self.elements.len() as u32 - 1
            }
        };
        self.places.insert(key, place);
        self.touch(place);
        place
    }

    /// Moves an element that is there to a new place.
    pub(super) fn replace(&mut self, key: &[u8]) -> u32 {
        let old = self.detach(key);
        let place = self.insert(key);
        self.free.extend(old);
        place
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<u32> {
        let place = self.detach(key)?;
        self.free.push_back(place);
        Some(place)
    }

    /// Removes the element that wasn't used for the longest time.
    pub(super) fn evict(&mut self) {
        let oldest = self
            .elements
            .iter()
            .filter(|element| element.key.is_some())
            .min_by_key(|element| element.used)
            .and_then(|element| element.key.clone());
        if let Some(key) = oldest {
            self.remove(&key);
        }
    }

    /// The element of the longest stored prefix of `key`, an LPM key: prefix length, then the bits.
    pub(super) fn longest_prefix(&mut self, key: &[u8]) -> Option<u32> {
        let (length, bits) = split(key)?;
        (0..=length).rev().find_map(|length| {
            let key = with_length(length, bits);
            self.places.get(&key[..]).copied()
        })
    }

    pub(super) fn key(&self, place: u32) -> &[u8] {
        match self.elements.get(place as usize) {
            Some(Element { key: Some(key), .. }) => key,
            _ => &[],
        }
    }

    pub(super) fn elements(&self) -> impl Iterator<Item = u32> {
        (0..)
            .zip(&self.elements)
            .filter(|(_, element)| element.key.is_some())
            .map(|(place, _)| place)
    }

    fn detach(&mut self, key: &[u8]) -> Option<u32> {
        let place = self.places.remove(key)?;
        self.elements[place as usize].key = None;
        Some(place)
    }

    fn touch(&mut self, place: u32) {
        self.clock += 1;
        self.elements[place as usize].used = self.clock;
    }
}

/// An LPM key with the bits behind its prefix cleared; None if the prefix is longer than the key.
pub(super) fn masked(key: &[u8]) -> Option<Vec<u8>> {
    let (length, bits) = split(key)?;
    Some(with_length(length, bits))
}

fn split(key: &[u8]) -> Option<(u32, &[u8])> {
    let (length, bits) = key.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length);
    (u64::from(length) <= 8 * bits.len() as u64).then_some((length, bits))
}

fn with_length(length: u32, bits: &[u8]) -> Vec<u8> {
    let mut key = length.to_le_bytes().to_vec();
    key.extend((0..).zip(bits).map(|(at, byte)| {
        let kept = length.saturating_sub(8 * at).min(8);
        byte & !(0xff_u16 >> kept) as u8
    }));
    key
}
