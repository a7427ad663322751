//! What is done to one group while things break: cards are drawn from the deck and played, and what they begin is ended later.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::deck::{Card, Deck};
use crate::group::{Group, Start};
use crate::network::{Network, Weather};
use crate::plan::{Durability, Segment};
use crate::watch::Watch;

/// What `--accelerate` may be after a restart.
const PROGRAMS: [&str; 6] = [
    "broadcast",
    "prepare",
    "prepare-ok",
    "broadcast,prepare",
    "prepare,prepare-ok",
    "none",
];

/// Something that is due later.
#[derive(Clone, Copy, Debug)]
enum Later {
    Restart(usize, Start),
    Resume(usize),
    Pause(usize, u32),
    Join,
}

/// The faults that one group suffers.
pub(crate) struct Chaos<'a> {
    pub(crate) deck: &'a mut Deck,
    pub(crate) group: &'a mut Group,
    pub(crate) network: &'a mut Network,
    pub(crate) watch: &'a Watch,
    pub(crate) segment: Segment,
    /// How many replicas may be lost at once.
    pub(crate) f: usize,
    /// How many clients' hosts follow the replicas' in the network.
    pub(crate) clients: usize,
    later: Vec<(Instant, Later)>,
    next: Instant,
    next_weather: Instant,
    is_cut: bool,
}

impl<'a> Chaos<'a> {
    pub(crate) fn new(
        deck: &'a mut Deck,
        group: &'a mut Group,
        network: &'a mut Network,
        watch: &'a Watch,
        segment: Segment,
        clients: usize,
    ) -> Chaos<'a> {
        let f = (group.len() - 1) / 2;
        let now = Instant::now();
        Chaos {
            deck,
            group,
            network,
            watch,
            segment,
            f,
            clients,
            later: Vec::new(),
            next: now + Duration::from_millis(500),
            next_weather: now,
            is_cut: false,
        }
    }

    /// Does what is due; returns what was done, for people.
    pub(crate) fn turn(&mut self) -> Result<Vec<String>> {
        let now = Instant::now();
        let mut done = Vec::new();
        let due: Vec<Later> = self
            .later
            .extract_if(.., |(at, _)| *at <= now)
            .map(|(_, later)| later)
            .collect();
        for later in due {
            self.later(later, &mut done)?;
        }
        if now >= self.next_weather {
            let weather = Weather::draw(&mut self.deck.random);
            self.network.set_weather(weather)?;
            done.push(format!("{weather:?}"));
            self.next_weather = now + self.between(500, 3000);
        }
        if now >= self.next {
            let mut card = self.deck.draw();
            // In memory mode nothing would be left.
            while card == Card::PowerCut && self.segment.durability == Durability::Memory {
                card = self.deck.draw();
            }
            match self.play(card)? {
                Some(what) => {
                    *self.deck.happened.entry(card.name()).or_default() += 1;
                    done.push(format!("{}: {what}", card.name()));
                    self.next = now + self.between(400, 2200);
                }
                None => {
                    self.deck.put_back(card);
                    self.next = now + Duration::from_millis(50);
                }
            }
        }
        Ok(done)
    }

    /// Ends all faults: links are good, and everybody runs.
    pub(crate) fn heal(mut self) -> Result<()> {
        self.network.heal()?;
        self.later.clear();
        for index in 0..self.group.len() {
            self.group.resume(index)?;
            if self.group.is_killed(index) {
                self.group.spawn(index, self.group.how_started(index))?;
            }
        }
        Ok(())
    }

    fn later(&mut self, later: Later, done: &mut Vec<String>) -> Result<()> {
        match later {
            Later::Restart(index, start) if self.group.is_killed(index) => {
                self.group.spawn(index, start)?;
                done.push(format!("replica {index} is back, {start:?}"));
            }
            Later::Restart(..) => {}
            Later::Resume(index) => self.group.resume(index)?,
            Later::Pause(index, times) if self.group.runs(index) => {
                self.group.pause(index)?;
                let paused = self.between(10, 60);
                self.after(paused, Later::Resume(index));
                if times > 0 {
                    let next = paused + self.between(5, 30);
                    self.after(next, Later::Pause(index, times - 1));
                }
            }
            Later::Pause(..) => {}
            Later::Join => {
                self.network.join()?;
                self.is_cut = false;
                done.push("all are joined".to_owned());
            }
        }
        Ok(())
    }

    /// Does it, and says to whom; None when it isn't possible now.
    fn play(&mut self, card: Card) -> Result<Option<String>> {
        let all: Vec<usize> = (0..self.group.len()).collect();
        match card {
            Card::KillPrimary | Card::KillBackup => {
                let Some(index) = self.find(card == Card::KillPrimary) else {
                    return Ok(None);
                };
                let start = self.group.how_started(index);
                self.kill(index, start)
            }
            Card::Reprogram => {
                let Some(index) = self.find(false) else {
                    return Ok(None);
                };
                let programs = match self.group.how_started(index).programs {
                    "all" => self.deck.random.pick(&PROGRAMS),
                    _ => "all",
                };
                let start = Start {
                    programs,
                    ..self.group.how_started(index)
                };
                self.kill(index, start)
            }
            Card::SkewClock => {
                let Some(index) = self.find(false) else {
                    return Ok(None);
                };
                let ahead = 1 + self.deck.random.below(100_000);
                let clock_ahead_s = match self.group.how_started(index).clock_ahead_s {
                    0 => u32::try_from(ahead)?,
                    _ => 0,
                };
                let start = Start {
                    clock_ahead_s,
                    ..self.group.how_started(index)
                };
                self.kill(index, start)
            }
            Card::PowerCut => {
                for index in all {
                    self.group.kill(index)?;
                    let start = self.group.how_started(index);
                    let back = self.between(100, 1500);
                    self.after(back, Later::Restart(index, start));
                }
                Ok(Some("they come back from their disks".to_owned()))
            }
            Card::PausePrimary | Card::PauseBackup => {
                let Some(index) = self.find(card == Card::PausePrimary) else {
                    return Ok(None);
                };
                self.group.pause(index)?;
                let paused = self.between(50, 2500);
                self.after(paused, Later::Resume(index));
                Ok(Some(format!("replica {index}, for {paused:?}")))
            }
            Card::Slow => {
                let primary = self.deck.random.chance(500);
                let Some(index) = self.find(primary) else {
                    return Ok(None);
                };
                self.after(Duration::ZERO, Later::Pause(index, 30));
                Ok(Some(format!("replica {index}")))
            }
            Card::IsolatePrimary | Card::IsolateBackup => {
                let Some(index) = self.find(card == Card::IsolatePrimary) else {
                    return Ok(None);
                };
                let others = (0..all.len() + self.clients).filter(|other| *other != index);
                let with_clients = self.deck.random.chance(500);
                let others = others.filter(|other| *other < all.len() || with_clients);
                let cuts = others.flat_map(|other| [(index, other), (other, index)]);
                self.cut(cuts.collect(), format!("replica {index}"))
            }
            Card::OneWay => {
                let (from, to) = (self.pick(&all), self.pick(&all));
                if from == to {
                    return Ok(None);
                }
                self.cut(vec![(from, to)], format!("{from} to {to}"))
            }
            Card::Split | Card::Bridge => {
                let mut order = all;
                for at in (1..order.len()).rev() {
                    order.swap(at, self.deck.random.index(at + 1));
                }
                let first = 1 + self.deck.random.index(order.len() - 1);
                let (left, right) = order.split_at(first);
                // The bridge is in both parts: it is cut from nobody.
                let right = if card == Card::Bridge && right.len() > 1 {
                    &right[1..]
                } else {
                    right
                };
                let pairs = left
                    .iter()
                    .flat_map(|one| right.iter().flat_map(|two| [(*one, *two), (*two, *one)]));
                self.cut(pairs.collect(), format!("{left:?} from {right:?}"))
            }
            Card::CutClients => {
                let replicas = all.len();
                let mut cuts = Vec::new();
                for index in all {
                    for client in replicas..replicas + self.clients {
                        if self.deck.random.chance(500) {
                            cuts.push((client, index));
                        }
                        if self.deck.random.chance(500) {
                            cuts.push((index, client));
                        }
                    }
                }
                self.cut(cuts, "at random".to_owned())
            }
        }
    }

    fn kill(&mut self, index: usize, start: Start) -> Result<Option<String>> {
        // A group in memory can't bear that more than f lose theirs before they have got it back. One on disk can, but would
        // stand still most of the time; that is what cutting the power of all is there for.
        if self.lost() >= self.f {
            return Ok(None);
        }
        self.group.kill(index)?;
        let back = self.between(20, 2000);
        self.after(back, Later::Restart(index, start));
        Ok(Some(format!("replica {index}, back after {back:?}")))
    }

    /// One partition at a time.
    fn cut(&mut self, pairs: Vec<(usize, usize)>, whom: String) -> Result<Option<String>> {
        if self.is_cut || pairs.is_empty() {
            return Ok(None);
        }
        self.network.cut(pairs)?;
        self.is_cut = true;
        let length = self.between(200, 3000);
        self.after(length, Later::Join);
        Ok(Some(format!("{whom}, for {length:?}")))
    }

    /// Replicas that are killed, or whose present life hasn't been seen to be normal yet: they may know nothing.
    fn lost(&self) -> usize {
        let seen = self.watch.seen();
        let knows = |index: &usize| {
            let pid = self.group.pid(*index);
            pid.is_some_and(|pid| seen.was_normal(*index, pid))
        };
        (0..self.group.len()).filter(|index| !knows(index)).count()
    }

    /// A replica that runs: the primary, or one that isn't.
    fn find(&mut self, primary: bool) -> Option<usize> {
        let leads = self.watch.seen().primary();
        let fit: Vec<usize> = (0..self.group.len())
            .filter(|index| (leads == Some(*index)) == primary && self.group.runs(*index))
            .collect();
        (!fit.is_empty()).then(|| self.pick(&fit))
    }

    fn pick(&mut self, from: &[usize]) -> usize {
        self.deck.random.pick(from)
    }

    fn between(&mut self, from_ms: u64, to_ms: u64) -> Duration {
        Duration::from_millis(from_ms + self.deck.random.below(to_ms - from_ms))
    }

    fn after(&mut self, delay: Duration, later: Later) {
        self.later.push((Instant::now() + delay, later));
    }
}
