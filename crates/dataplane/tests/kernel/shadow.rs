//! The interpreter, rbpf, and clang's programs in the kernel beside our programs there: every frame that a test gives to those
//! goes through the others too, from the same maps, and must come out the same way: verdict, frame, maps, ring records, counters,
//! copies (clang's leave through the same device as ours).

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bpf_asm::engine::{EngineKind, rbpf};
use bpf_asm::harness::Harness;
use bpf_asm::interpreter::{Input, Output, SkbInput, XdpInput};
use bpf_asm::program::Program;
use electrode_dataplane::{Dataplane, Image, Programs};
use electrode_fastpath::abi::{RECORD_NOTICE, RecordHeader, STALE_INTERVAL_NS, Shared};
use electrode_fastpath::counters::Counters;
use electrode_fastpath::programs::{NAMES, PROGRAM_PREPARE, PROGRAM_PREPARE_OK, build};
use nix::time::{ClockId, clock_gettime};

use crate::clang::Clang;

/// The word of [`Shared`] that holds a time.
const STALE_PASSED: usize = core::mem::offset_of!(Shared, stale_passed) / 8;

/// How many runs of one group the others follow. A few tests fill a ring by tens of thousands; the rest need far fewer.
const FOLLOWED_RUNS: u32 = 1_000;

/// The programs in other engines.
pub(crate) struct Shadow {
    /// Runs that they still follow.
    left: u32,
    others: [Other; 2],
    /// None where there is no clang.
    clang: Option<Compiled>,
}

/// clang's programs.
struct Compiled {
    clang: Option<Clang>,
    /// As [`Other::taken`].
    taken: Vec<Vec<u8>>,
    /// After the last run.
    counters: BTreeMap<(&'static str, &'static str), u64>,
}

/// The programs in one of them.
struct Other {
    engine: EngineKind,
    harness: Harness,
    /// Messages whose records user space has taken, oldest first.
    taken: Vec<Vec<u8>>,
}

/// What a program did.
struct Ran {
    verdict: u32,
    packet: Vec<u8>,
    copies: Vec<Vec<u8>>,
}

/// What must agree, before or after a run.
struct Moment {
    image: Image,
    counters: BTreeMap<(&'static str, &'static str), u64>,
}

impl Shadow {
    pub(crate) fn new(programs: Programs) -> Shadow {
        static BUILT: OnceLock<[Program; 4]> = OnceLock::new();
        let built = BUILT
            .get_or_init(|| NAMES.map(|name| build(name).expect("a program").expect("it builds")));
        let other = |engine| Other::new(engine, programs, built.clone());
        Shadow {
            left: FOLLOWED_RUNS,
            others: [other(EngineKind::Interpreter), other(EngineKind::Rbpf)],
            clang: Clang::borrow(Programs {
                // Who runs it without having loaded it has one of its own.
                broadcast: programs.broadcast || !(programs.prepare || programs.prepare_ok),
                ..programs
            })
            .map(Compiled::new),
        }
    }

    /// Whether the next run will be compared, as all before it were.
    pub(crate) fn is_following(&self) -> bool {
        self.left > 0
    }

    /// Runs `dispatch` in the kernel by `kernel`, and elsewhere, and compares.
    pub(crate) fn xdp(
        &mut self,
        dataplane: &Dataplane,
        frame: &[u8],
        kernel: impl FnOnce() -> (u32, Vec<u8>),
    ) -> (u32, Vec<u8>) {
        let input = XdpInput::new(frame).into();
        self.compare(dataplane, "dispatch", (frame, input), kernel)
            .0
    }

    /// The same for `broadcast`; the copies that the others sent besides, who must agree on them.
    pub(crate) fn broadcast(
        &mut self,
        dataplane: &Dataplane,
        frame: &[u8],
        kernel: impl FnOnce() -> (u32, Vec<u8>),
    ) -> ((u32, Vec<u8>), Vec<Vec<u8>>) {
        let input = SkbInput::new(frame).into();
        self.compare(dataplane, "broadcast", (frame, input), kernel)
    }

    /// Demands that the messages just taken from the kernel's ring are the ones in the others'.
    pub(crate) fn drained(&mut self, dataplane: &Dataplane, messages: &[Vec<u8>]) {
        if self.left == 0 {
            return;
        }
        for other in &mut self.others {
            other.take(&dataplane.image());
            let from = other.taken.len().checked_sub(messages.len());
            let from = from.expect("as many records as in the kernel");
            let same = other.taken[from..] == *messages;
            assert!(same, "records in the rings of kernel and {}", other.engine);
            other.taken.clear();
        }
        if let Some(clang) = &mut self.clang {
            clang.take(&dataplane.image());
            assert!(clang.taken == messages, "records in the ring of clang's");
            clang.taken.clear();
        }
    }

    fn compare(
        &mut self,
        dataplane: &Dataplane,
        program: &str,
        (frame, input): (&[u8], Input),
        kernel: impl FnOnce() -> (u32, Vec<u8>),
    ) -> ((u32, Vec<u8>), Vec<Vec<u8>>) {
        let Some(left) = self.left.checked_sub(1) else {
            return (kernel(), Vec::new());
        };
        self.left = left;
        let before = Moment::of_kernel(dataplane);
        let now = monotonic_ns();
        let ran = kernel();
        let after = Moment::of_kernel(dataplane);
        // The kernel ran a little later. Where that made a difference, it wrote its own time down.
        let stale_passed = after.image.shared[STALE_PASSED];
        let now = if stale_passed == before.image.shared[STALE_PASSED] {
            now
        } else {
            stale_passed
        };
        if let Some(clang) = &mut self.clang {
            clang.compare(program, frame, (&ran, now), (&before, &after));
        }
        let mut copies: Option<Vec<Vec<u8>>> = None;
        for other in &mut self.others {
            let engine = other.engine;
            other.take(&before.image);
            other.become_like(&before.image);
            let counters = other.counters();
            other.harness.machine().set_time_ns(now);
            let theirs = other.run(program, input.clone());
            assert_eq!(
                (theirs.verdict, &theirs.packet),
                (ran.0, &ran.1),
                "verdict and frame of {program}: {engine}, kernel"
            );
            assert_eq!(
                timeless(other.image(), &before.image),
                timeless(after.image.clone(), &before.image),
                "maps after {program}: {engine}, kernel"
            );
            assert_eq!(
                moved(&counters, &other.counters()),
                moved(&before.counters, &after.counters),
                "counters of {program}: {engine}, kernel"
            );
            let copies = copies.get_or_insert_with(|| theirs.copies.clone());
            assert!(*copies == theirs.copies, "copies of {program}: {engine}");
        }
        (ran, copies.unwrap_or_default())
    }
}

impl Compiled {
    fn new(clang: Clang) -> Compiled {
        Compiled {
            counters: counters_of(&clang.dataplane),
            clang: Some(clang),
            taken: Vec::new(),
        }
    }

    fn clang(&mut self) -> &mut Clang {
        self.clang.as_mut().expect("it is given back at the end")
    }

    /// Takes the records that user space has taken from our programs' ring.
    fn take(&mut self, image: &Image) {
        let mut taken = self.clang().image().ring[1];
        while taken < image.ring[1] {
            let mut record = Vec::new();
            if self.clang().dataplane.take_record(&mut record) {
                self.taken.extend(message(&record));
            }
            let after = self.clang().image().ring[1];
            assert!(after > taken, "our programs' ring had more than clang's");
            taken = after;
        }
        assert_eq!(taken, image.ring[1], "taken of clang's ring, and of ours");
    }

    fn compare(
        &mut self,
        program: &str,
        frame: &[u8],
        (ran, began_ns): (&(u32, Vec<u8>), u64),
        (before, after): (&Moment, &Moment),
    ) {
        self.take(&before.image);
        let clang = self.clang();
        clang.dataplane.restore(&before.image);
        let runner = clang.dataplane.runner();
        let theirs = runner.run(program, frame).expect("the kernel runs it");
        // What a message of an older view comes to depends on the time. If that ran out meanwhile, both are right.
        let passes = before.image.shared[STALE_PASSED].wrapping_add(STALE_INTERVAL_NS);
        if (began_ns..=monotonic_ns()).contains(&passes) {
            self.counters = counters_of(&clang.dataplane);
            return;
        }
        assert_eq!(theirs, *ran, "verdict and frame of {program}: clang, ours");
        assert_eq!(
            timeless(clang.image(), &before.image),
            timeless(after.image.clone(), &before.image),
            "maps after {program}: clang, ours"
        );
        let counters = counters_of(&clang.dataplane);
        assert_eq!(
            moved(&self.counters, &counters),
            moved(&before.counters, &after.counters),
            "counters of {program}: clang, ours"
        );
        self.counters = counters;
    }
}

impl Drop for Compiled {
    fn drop(&mut self) {
        // After a failure its ring may hold anything; the next one starts afresh.
        if let Some(clang) = self.clang.take()
            && !std::thread::panicking()
        {
            clang.give_back();
        }
    }
}

/// The message in a record; None for a notice.
fn message(record: &[u8]) -> Option<Vec<u8>> {
    const FRONT: usize = size_of::<RecordHeader>();
    let word = |at: usize| u64::from_le_bytes(record[at..at + 8].try_into().expect("8 bytes"));
    (word(0) != RECORD_NOTICE).then(|| record[FRONT..FRONT + word(8) as usize].to_vec())
}

fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

impl Other {
    fn new(engine: EngineKind, programs: Programs, built: [Program; 4]) -> Other {
        let harness = Harness::new(built).expect("the machine takes the programs");
        for (wanted, index, name) in [
            (programs.prepare, PROGRAM_PREPARE, "prepare"),
            (programs.prepare_ok, PROGRAM_PREPARE_OK, "prepare_ok"),
        ] {
            if wanted {
                harness.jump("programs", index, name).expect("a place");
            }
        }
        Other {
            engine,
            harness,
            taken: Vec::new(),
        }
    }

    fn run(&self, program: &str, input: Input) -> Ran {
        let packets = |outputs: Vec<Output>| outputs.into_iter().map(|output| output.packet);
        if self.engine == EngineKind::Rbpf {
            let id = self.harness.program(program).expect("a program");
            let ran = rbpf::run(self.harness.machine(), id, input);
            let ran = ran.unwrap_or_else(|error| panic!("{error}"));
            return Ran {
                verdict: ran.verdict,
                packet: ran.packet,
                copies: packets(ran.outputs).collect(),
            };
        }
        let ran = self.harness.run(program, input);
        let ran = ran.unwrap_or_else(|fault| panic!("{fault}"));
        Ran {
            verdict: ran.verdict,
            packet: ran.packet,
            copies: packets(ran.outputs).collect(),
        }
    }

    /// Takes the records that user space has taken from the kernel's ring.
    fn take(&mut self, image: &Image) {
        let ring = self.harness.map("ring").expect("a ring");
        while ring.ring_positions().expect("a ring").1 < image.ring[1] {
            let before = ring.ring_positions().expect("a ring").1;
            if let Some(record) = ring.consume().expect("a ring") {
                self.taken.extend(message(&record.bytes));
            }
            let after = ring.ring_positions().expect("a ring").1;
            assert!(after > before, "the kernel's ring had more");
        }
        assert_eq!(ring.ring_positions().expect("a ring").1, image.ring[1]);
    }

    fn become_like(&self, image: &Image) {
        for (name, words) in [
            ("shared", &image.shared),
            ("slots", &image.slots),
            ("heard", &image.heard),
            ("targets", &image.targets),
        ] {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let map = self.harness.map(name).expect("a map");
            map.write(0, &bytes).expect("its memory");
        }
    }

    fn image(&self) -> Image {
        let words = |name: &str| {
            let map = self.harness.map(name).expect("a map");
            let bytes = map.def().value_size as usize * map.def().max_entries as usize;
            let memory = map.read(0, bytes).expect("its memory");
            memory
                .chunks_exact(8)
                .map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes")))
                .collect()
        };
        let ring = self.harness.map("ring").expect("a ring");
        let (producer, consumer) = ring.ring_positions().expect("a ring");
        Image {
            shared: words("shared"),
            slots: words("slots"),
            heard: words("heard"),
            targets: words("targets"),
            ring: [producer, consumer],
        }
    }

    fn counters(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        let map = self.harness.map("counters").expect("a map");
        let names = Counters::NAMES.iter().copied();
        let value = |at: usize| map.load_u64(8 * at).expect("a counter");
        (0..)
            .map(value)
            .zip(names)
            .map(|(value, name)| (name, value))
            .collect()
    }
}

impl Moment {
    fn of_kernel(dataplane: &Dataplane) -> Moment {
        Moment {
            image: dataplane.image(),
            counters: counters_of(dataplane),
        }
    }
}

fn counters_of(dataplane: &Dataplane) -> BTreeMap<(&'static str, &'static str), u64> {
    let counters = dataplane.counters().expect("the counters can be read");
    counters
        .into_iter()
        .map(|counter| ((counter.program, counter.name), counter.value))
        .collect()
}

/// The image with 1 for each time that is another one than before: nobody runs at the same nanosecond.
fn timeless(mut image: Image, before: &Image) -> Image {
    let shared = &mut image.shared[STALE_PASSED];
    *shared = u64::from(*shared != before.shared[STALE_PASSED]);
    for (at, word) in image.heard.iter_mut().enumerate().step_by(2) {
        *word = u64::from(*word != before.heard[at]);
    }
    image
}

fn moved(
    before: &BTreeMap<(&'static str, &'static str), u64>,
    after: &BTreeMap<(&'static str, &'static str), u64>,
) -> BTreeMap<(&'static str, &'static str), u64> {
    let differences = after.iter().map(|(name, value)| {
        let before = before.get(name).copied().unwrap_or(0);
        (*name, value - before)
    });
    differences.filter(|(_, by)| *by > 0).collect()
}
