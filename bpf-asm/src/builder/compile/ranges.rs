//! Where each register holds a value, and where it gets one, by the numbers of instructions in the order of layout.
//!
//! Each block has a point before its first instruction, one behind each instruction, and one behind its end. A register is
//! live from the instruction that writes it to just before the last one that reads what was written. Two registers
//! interfere where one is written while the other is live, unless that write copies the other (Chaitin).

use std::cell::Cell;

use super::super::ir::BlockId;
use super::code::{CodeBlock, R};
use super::steps::step;

/// In place of the copied register, for a write that copies none.
const NOTHING: R = R::MAX;

/// From the first point up to, not including, the second.
pub(super) type Interval = (u32, u32);
/// A point at which a register is written, and the register that is copied.
type Write = (u32, R);

/// Where something is live, in order and apart, and where it is written, in order.
#[derive(Clone, Copy)]
pub(super) struct Span<'a> {
    live: &'a [Interval],
    writes: &'a [Write],
}

impl Span<'_> {
    fn len(&self) -> usize {
        self.live.len() + self.writes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn live(&self) -> &[Interval] {
        self.live
    }

    pub(super) fn is_live_at(&self, point: u32) -> bool {
        let behind = self.live.partition_point(|live| live.0 <= point);
        behind > 0 && point < self.live[behind - 1].1
    }

    /// Whether it is written behind the first point and before the second.
    pub(super) fn is_written_between(&self, after: u32, before: u32) -> bool {
        let first = self.writes.partition_point(|write| write.0 <= after);
        self.writes.get(first).is_some_and(|write| write.0 < before)
    }

    /// Whether the two hold different values at once. Harmless is to copy one of these registers: either becomes both.
    pub(super) fn interferes(self, other: Span<'_>, is_harmless: impl Fn(R) -> bool) -> bool {
        let (small, large) = if self.len() < other.len() {
            (self, other)
        } else {
            (other, self)
        };
        step(small.len());
        let changes = |src: R| src == NOTHING || !is_harmless(src);
        let mut writes = small.writes.iter();
        if writes.any(|&(at, src)| changes(src) && large.is_live_at(at)) {
            return true;
        }
        small.live.iter().any(|&(start, end)| {
            let first = large.writes.partition_point(|write| write.0 < start);
            let within = large.writes[first..].iter();
            within
                .take_while(|write| write.0 < end)
                .any(|write| changes(write.1))
        })
    }
}

/// What a [`Span`] looks into.
#[derive(Clone, Debug, Default)]
pub(super) struct Range {
    live: Vec<Interval>,
    writes: Vec<Write>,
}

impl Range {
    pub(super) fn span(&self) -> Span<'_> {
        Span {
            live: &self.live,
            writes: &self.writes,
        }
    }

    pub(super) fn add(&mut self, span: Span<'_>) {
        step(span.len());
        span.live.iter().for_each(|live| self.add_live(*live));
        span.writes.iter().for_each(|write| self.add_write(*write));
    }

    /// Keeps it free for someone else at these points.
    pub(super) fn reserve(&mut self, moment: Interval) {
        self.add_live(moment);
        self.add_write((moment.0, NOTHING));
    }

    fn add_live(&mut self, (start, end): Interval) {
        let first = self.live.partition_point(|live| live.1 < start);
        let behind = first + self.live[first..].partition_point(|live| live.0 <= end);
        if first == behind {
            return self.live.insert(first, (start, end));
        }
        let start = start.min(self.live[first].0);
        let end = end.max(self.live[behind - 1].1);
        self.live[first] = (start, end);
        self.live.drain(first + 1..behind);
    }

    fn add_write(&mut self, write: Write) {
        let place = self.writes.partition_point(|other| other.0 < write.0);
        self.writes.insert(place, write);
    }
}

impl From<Span<'_>> for Range {
    fn from(span: Span<'_>) -> Range {
        Range {
            live: span.live.to_vec(),
            writes: span.writes.to_vec(),
        }
    }
}

/// Lists of what belongs to each register, in one.
struct ByRegister<T> {
    starts: Vec<u32>,
    all: Vec<T>,
}

impl<T: Copy + Default> ByRegister<T> {
    /// From pairs of which those of one register are in falling order.
    fn new(falling: &[(R, T)], registers: usize) -> ByRegister<T> {
        let mut starts = vec![0; registers + 1];
        for (reg, _) in falling {
            starts[*reg as usize] += 1;
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        let mut all = vec![T::default(); falling.len()];
        // Each start is the end as yet, and comes down with each element: the last come first.
        for &(reg, element) in falling {
            starts[reg as usize] -= 1;
            all[starts[reg as usize] as usize] = element;
        }
        ByRegister { starts, all }
    }

    fn of(&self, reg: R) -> &[T] {
        let reg = reg as usize;
        &self.all[self.starts[reg] as usize..self.starts[reg + 1] as usize]
    }
}

/// The ranges of all registers.
pub(super) struct Ranges {
    live: ByRegister<Interval>,
    writes: ByRegister<Write>,
}

impl Ranges {
    pub(super) fn new(
        blocks: &[CodeBlock],
        order: &[BlockId],
        live_out: &[Vec<R>],
        registers: usize,
    ) -> Ranges {
        let mut writes = Vec::new();
        let mut live = Intervals {
            wanted: vec![0; registers],
            found: Vec::new(),
            last: vec![usize::MAX; registers],
        };
        let mut touched: Vec<R> = Vec::new();
        let instructions = |block: &BlockId| blocks[*block].code.len() as u32;
        // One point before the code of each block and one behind its end. 0 is no point.
        let mut next: u32 = order.iter().map(|block| instructions(block) + 2).sum();
        for &number in order.iter().rev() {
            let block = &blocks[number];
            let mut point = next;
            for &reg in &live_out[number] {
                live.read(reg, point + 1, &mut touched);
            }
            block.end.0.uses(|reg| live.read(reg, point, &mut touched));
            for (code, _) in block.code.iter().rev() {
                point -= 1;
                let copied = code.as_copy().map_or(NOTHING, |(_, src)| src);
                code.defs(|dst| {
                    writes.push((dst, (point, copied)));
                    live.write(dst, point);
                });
                code.uses(|reg| live.read(reg, point, &mut touched));
            }
            for reg in touched.drain(..) {
                live.write(reg, point - 1);
            }
            next = point - 2;
        }
        Ranges {
            live: ByRegister::new(&live.found, registers),
            writes: ByRegister::new(&writes, registers),
        }
    }

    pub(super) fn of(&self, reg: R) -> Span<'_> {
        Span {
            live: self.live.of(reg),
            writes: self.writes.of(reg),
        }
    }
}

/// Intervals as they are found, going backward.
struct Intervals {
    /// Where each register's value is wanted to, if it is: never 0.
    wanted: Vec<u32>,
    found: Vec<(R, Interval)>,
    /// Where in `found` each register's last is.
    last: Vec<usize>,
}

impl Intervals {
    fn read(&mut self, reg: R, point: u32, touched: &mut Vec<R>) {
        if self.wanted[reg as usize] == 0 {
            self.wanted[reg as usize] = point;
            touched.push(reg);
        }
    }

    fn write(&mut self, reg: R, start: u32) {
        let end = std::mem::take(&mut self.wanted[reg as usize]);
        if end == 0 {
            return;
        }
        let last = &mut self.last[reg as usize];
        match self.found.get_mut(*last) {
            Some((_, next)) if next.0 == end => next.0 = start,
            _ => {
                *last = self.found.len();
                self.found.push((reg, (start, end)));
            }
        }
    }
}

/// Ranges of registers of which some are merged.
pub(super) struct Merged<'a> {
    ranges: &'a Ranges,
    /// What each register is merged into: itself, or another that may be merged in turn.
    into: Vec<Cell<R>>,
    /// Which of `own` a register has that others were merged into.
    place: Vec<u32>,
    own: Vec<Range>,
}

impl<'a> Merged<'a> {
    pub(super) fn new(ranges: &'a Ranges, registers: usize) -> Merged<'a> {
        Merged {
            ranges,
            into: (0..registers as R).map(Cell::new).collect(),
            place: vec![u32::MAX; registers],
            own: Vec::new(),
        }
    }

    /// The register that stands for this one.
    pub(super) fn find(&self, mut reg: R) -> R {
        loop {
            let next = self.into[reg as usize].get();
            if next == reg {
                return reg;
            }
            // Every second step is halved for those that come after.
            let behind = self.into[next as usize].get();
            self.into[reg as usize].set(behind);
            reg = behind;
        }
    }

    /// What all have that a register stands for.
    pub(super) fn of(&self, reg: R) -> Span<'_> {
        match self.own.get(self.place[reg as usize] as usize) {
            Some(range) => range.span(),
            None => self.ranges.of(reg),
        }
    }

    /// Makes `gone` and `kept` one, if they don't interfere. Both stand for themselves.
    pub(super) fn merge(&mut self, kept: R, gone: R) {
        let ours = |src: R| {
            let src = self.find(src);
            src == kept || src == gone
        };
        if self.of(kept).interferes(self.of(gone), ours) {
            return;
        }
        let places = [kept, gone].map(|reg| self.place[reg as usize]);
        let (mut place, mut small) = (places[0], gone);
        if self.of(kept).len() < self.of(gone).len() {
            (place, small) = (places[1], kept);
        }
        let mut range = match self.own.get_mut(place as usize) {
            Some(range) => std::mem::take(range),
            None => {
                let large = if small == gone { kept } else { gone };
                place = self.own.len() as u32;
                self.own.push(Range::default());
                self.ranges.of(large).into()
            }
        };
        range.add(self.of(small));
        if let Some(small) = self.own.get_mut(self.place[small as usize] as usize) {
            *small = Range::default();
        }
        self.own[place as usize] = range;
        self.place[kept as usize] = place;
        self.into[gone as usize].set(kept);
    }
}
