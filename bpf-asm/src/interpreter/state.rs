//! What the virtual CPUs of one machine share: maps, programs, clock, randomness, routes, and what was printed.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::image::Image;
use super::map::{Contents, MapState, Ring};
use super::route::Route;

/// The most lines of `bpf_trace_printk` that are kept until they are taken.
pub const MAX_PRINTED_LINES: usize = 10_000;
/// Instructions that a run may take unless it says otherwise.
pub const DEFAULT_BUDGET: u64 = 10_000_000;

/// The shared part.
#[derive(Debug)]
pub(crate) struct State {
    pub(super) cpus: u32,
    pub(super) maps: Vec<MapState>,
    pub(super) names: BTreeMap<String, u32>,
    pub(super) programs: Vec<Rc<Image>>,
    pub(super) time_ns: u64,
    pub(super) random: Random,
    pub(super) printed: Vec<String>,
    pub(super) routes: Vec<Route>,
    /// MTU by interface; others have [`super::DEFAULT_MTU`].
    pub(super) mtus: BTreeMap<u32, u32>,
    /// Interfaces that packets can't be sent to.
    pub(super) removed_interfaces: BTreeSet<u32>,
    pub(super) budget: u64,
}

impl State {
    pub(super) fn new(cpus: u32) -> State {
        State {
            cpus,
            maps: Vec::new(),
            names: BTreeMap::new(),
            programs: Vec::new(),
            // Programs compare with times that were never set.
            time_ns: 1_000_000_000,
            random: Random::Seeded(0),
            printed: Vec::new(),
            routes: Vec::new(),
            mtus: BTreeMap::new(),
            removed_interfaces: BTreeSet::new(),
            budget: DEFAULT_BUDGET,
        }
    }

    pub(super) fn ring(&self, map: u32) -> Option<&Ring> {
        match &self.maps.get(map as usize)?.contents {
            Contents::Ring(ring) => Some(ring),
            _ => None,
        }
    }

    pub(super) fn ring_mut(&mut self, map: u32) -> Option<&mut Ring> {
        match &mut self.maps.get_mut(map as usize)?.contents {
            Contents::Ring(ring) => Some(ring),
            _ => None,
        }
    }

    pub(super) fn print(&mut self, line: String) {
        if self.printed.len() < MAX_PRINTED_LINES {
            self.printed.push(line);
        }
    }
}

/// Where `bpf_get_prandom_u32` gets its numbers.
#[derive(Debug)]
pub(super) enum Random {
    /// From a seed, by SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
    Seeded(u64),
    /// These, over and over.
    Sequence { numbers: Vec<u32>, next: usize },
}

impl Random {
    pub(super) fn next(&mut self) -> u32 {
        match self {
            Random::Seeded(seed) => {
                *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mixed = (*seed ^ *seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
                (mixed ^ mixed >> 31) as u32
            }
            Random::Sequence { numbers, next } => {
                let number = numbers.get(*next).copied().unwrap_or(0);
                *next = (*next + 1) % numbers.len().max(1);
                number
            }
        }
    }
}
