//! The links between the hosts: how bad they are, who can't reach whom, and what became of the frames so far.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use electrode_lab::{Host, Lab, Loaded};
use electrode_sim::Random;
use serde::Serialize;

use crate::delay_line::DelayLine;
use crate::program::{self, Fate, HOSTS, Tally};

/// How bad links are; shares are of 65,536.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weather {
    lose: u64,
    corrupt: u64,
    duplicate: u64,
    reorder: u64,
    delay: u64,
    late: u64,
}

impl Weather {
    /// A thousandth.
    const PERMILLE: u64 = 65;

    /// Often fair, sometimes one thing alone, sometimes all at once.
    pub(crate) fn draw(random: &mut Random) -> Weather {
        let mut share = |permille: u64| random.below(permille * Weather::PERMILLE);
        let all = Weather {
            lose: share(120),
            corrupt: share(30),
            duplicate: share(120),
            reorder: share(120),
            delay: share(120),
            late: share(40),
        };
        let none = Weather::default();
        match random.below(10) {
            0 => none,
            1 => Weather {
                lose: 3 * all.lose,
                ..none
            },
            2 => Weather {
                delay: 3 * all.delay,
                reorder: 3 * all.reorder,
                ..none
            },
            3 => Weather {
                duplicate: 3 * all.duplicate,
                late: 3 * all.late,
                ..none
            },
            4 => Weather {
                corrupt: 3 * all.corrupt,
                ..none
            },
            _ => all,
        }
    }
}

/// What became of frames, over all links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Frames {
    /// Frames that passed by.
    pub seen: u64,
    /// Dropped because their hosts were cut off from each other.
    pub cut: u64,
    /// Lost.
    pub lost: u64,
    /// Sent on with a flipped bit.
    pub corrupted: u64,
    /// Sent twice.
    pub duplicated: u64,
    /// Overtaken by another.
    pub reordered: u64,
    /// Held back for a time.
    pub delayed: u64,
    /// Sent, and a copy of them once more much later.
    pub late: u64,
    /// Not held back for want of room.
    pub ring_full: u64,
}

impl Frames {
    /// Adds what another network did.
    pub(crate) fn add(&mut self, other: &Frames) {
        for (sum, more) in self.all_mut().into_iter().zip(other.all()) {
            *sum += more;
        }
    }

    fn all(&self) -> [u64; 9] {
        let mut copy = *self;
        copy.all_mut().map(|count| *count)
    }

    fn all_mut(&mut self) -> [&mut u64; 9] {
        let Frames {
            seen,
            cut,
            lost,
            corrupted,
            duplicated,
            reordered,
            delayed,
            late,
            ring_full,
        } = self;
        [
            seen, cut, lost, corrupted, duplicated, reordered, delayed, late, ring_full,
        ]
    }
}

/// The links of one lab.
pub(crate) struct Network {
    program: Loaded,
    line: DelayLine,
    seed: u64,
    /// The numbers of the hosts whose links may be bad.
    hosts: Vec<usize>,
    weather: Weather,
    /// Who can't reach whom, by number.
    cuts: Vec<(usize, usize)>,
}

impl Network {
    /// Takes the links between these hosts, for replicas that listen on this port. They are good at first.
    pub(crate) fn new(lab: &Arc<Lab>, hosts: &[Host], port: u16, seed: u64) -> Result<Network> {
        let program = program::chaos(port).context("building the program")?;
        let mut program = Loaded::new(program)?;
        let line = DelayLine::start(Arc::clone(lab), program.take_ring(program::RING)?)?;
        for host in hosts {
            host.attach_at_port(&mut program)?;
        }
        let mut network = Network {
            program,
            line,
            seed,
            hosts: hosts.iter().map(number).collect(),
            weather: Weather::default(),
            cuts: Vec::new(),
        };
        network.apply()?;
        Ok(network)
    }

    /// Makes all links as bad as that.
    pub(crate) fn set_weather(&mut self, weather: Weather) -> Result<()> {
        self.weather = weather;
        self.apply()
    }

    /// Nothing from the first of each pair reaches the second any more.
    pub(crate) fn cut(&mut self, pairs: impl IntoIterator<Item = (usize, usize)>) -> Result<()> {
        let hosts = &self.hosts;
        let pairs = pairs.into_iter().map(|(from, to)| (hosts[from], hosts[to]));
        self.cuts = pairs.collect();
        self.apply()
    }

    /// Everybody reaches everybody.
    pub(crate) fn join(&mut self) -> Result<()> {
        self.cut([])
    }

    /// Good links between all.
    pub(crate) fn heal(&mut self) -> Result<()> {
        self.weather = Weather::default();
        self.join()
    }

    /// Whether what is held back still gets on its way.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.line.check()
    }

    /// What became of all frames so far.
    pub(crate) fn frames(&mut self) -> Result<Frames> {
        let mut frames = Frames::default();
        for (from, to) in self.pairs() {
            let words: [u64; 9] = self.program.value(program::TALLIES, index(from, to))?;
            let Tally {
                seen,
                cut,
                lost,
                corrupted,
                duplicated,
                delayed,
                late,
                ring_full,
                waiting: _,
            } = zerocopy::transmute!(words);
            frames.add(&Frames {
                seen,
                cut,
                lost,
                corrupted,
                duplicated,
                reordered: 0,
                delayed,
                late,
                ring_full,
            });
        }
        frames.reordered = self.line.released.overtaken.load(Ordering::Relaxed);
        Ok(frames)
    }

    fn pairs(&self) -> Vec<(usize, usize)> {
        let pairs = self
            .hosts
            .iter()
            .flat_map(|from| self.hosts.iter().map(move |to| (*from, *to)));
        pairs.filter(|(from, to)| from != to).collect()
    }

    fn apply(&mut self) -> Result<()> {
        let Weather {
            lose,
            corrupt,
            duplicate,
            reorder,
            delay,
            late,
        } = self.weather;
        for (from, to) in self.pairs() {
            let fate = Fate {
                seed: self.seed,
                cut: u64::from(self.cuts.contains(&(from, to))),
                lose,
                corrupt,
                duplicate,
                reorder,
                delay,
                late,
            };
            self.program.set::<[u64; 8]>(
                program::FATES,
                index(from, to),
                zerocopy::transmute!(fate),
            )?;
        }
        Ok(())
    }
}

/// A host's number: the last byte of its Ethernet address.
fn number(host: &Host) -> usize {
    usize::from(host.mac()[5]) % HOSTS
}

/// Where a pair of hosts is in the maps.
fn index(from: usize, to: usize) -> u32 {
    u32::try_from(from * HOSTS + to).unwrap_or(u32::MAX)
}
