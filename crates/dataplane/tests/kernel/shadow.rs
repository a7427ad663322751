//! The interpreter beside the kernel: every frame that a test gives to the programs in the kernel goes through the
//! interpreter too, from the same maps, and must come out the same way: verdict, frame, maps, ring records, counters.

use std::collections::BTreeMap;

use bpf_asm::harness::{Harness, Outcome};
use bpf_asm::interpreter::{SkbInput, XdpInput};
use electrode_dataplane::{Dataplane, Image, Programs};
use electrode_fastpath::abi::{RECORD_NOTICE, Shared};
use electrode_fastpath::counters::Counters;
use electrode_fastpath::programs::{NAMES, PROGRAM_PREPARE, PROGRAM_PREPARE_OK, build};
use nix::time::{ClockId, clock_gettime};

/// The word of [`Shared`] that holds a time.
const STALE_PASSED: usize = core::mem::offset_of!(Shared, stale_passed) / 8;

/// The programs in the interpreter.
pub(crate) struct Shadow {
    harness: Harness,
    /// Messages whose records user space has taken, oldest first.
    taken: Vec<Vec<u8>>,
}

/// What must agree, before or after a run.
struct Moment {
    image: Image,
    counters: BTreeMap<(&'static str, &'static str), u64>,
}

impl Shadow {
    pub(crate) fn new(programs: Programs) -> Shadow {
        let built = NAMES.map(|name| build(name).expect("a program").expect("it builds"));
        let harness = Harness::new(built).expect("the interpreter takes the programs");
        for (wanted, index, name) in [
            (programs.prepare, PROGRAM_PREPARE, "prepare"),
            (programs.prepare_ok, PROGRAM_PREPARE_OK, "prepare_ok"),
        ] {
            if wanted {
                harness.jump("programs", index, name).expect("a place");
            }
        }
        Shadow {
            harness,
            taken: Vec::new(),
        }
    }

    /// Runs `dispatch` in the kernel by `kernel`, and here, and compares.
    pub(crate) fn xdp(
        &mut self,
        dataplane: &Dataplane,
        frame: &[u8],
        kernel: impl FnOnce() -> (u32, Vec<u8>),
    ) -> (u32, Vec<u8>) {
        self.compare(dataplane, "dispatch", kernel, |harness| {
            harness
                .run("dispatch", XdpInput::new(frame))
                .unwrap_or_else(|fault| panic!("{fault}"))
        })
        .0
    }

    /// The same for `broadcast`; the copies that the interpreter sent besides.
    pub(crate) fn broadcast(
        &mut self,
        dataplane: &Dataplane,
        frame: &[u8],
        kernel: impl FnOnce() -> (u32, Vec<u8>),
    ) -> ((u32, Vec<u8>), Vec<Vec<u8>>) {
        let (ran, outcome) = self.compare(dataplane, "broadcast", kernel, |harness| {
            harness
                .run("broadcast", SkbInput::new(frame))
                .unwrap_or_else(|fault| panic!("{fault}"))
        });
        let copies = outcome.outputs.into_iter().map(|output| output.packet);
        (ran, copies.collect())
    }

    /// Demands that the messages just taken from the kernel's ring are the ones in the interpreter's.
    pub(crate) fn drained(&mut self, dataplane: &Dataplane, messages: &[Vec<u8>]) {
        self.take(&dataplane.image());
        let from = self.taken.len().checked_sub(messages.len());
        let from = from.expect("as many records as in the kernel");
        assert!(self.taken[from..] == *messages, "records in the rings");
        self.taken.clear();
    }

    fn compare(
        &mut self,
        dataplane: &Dataplane,
        program: &str,
        kernel: impl FnOnce() -> (u32, Vec<u8>),
        interpreter: impl FnOnce(&Harness) -> Outcome,
    ) -> ((u32, Vec<u8>), Outcome) {
        let before = Moment::of_kernel(dataplane);
        self.take(&before.image);
        self.become_like(&before.image);
        let own_counters = self.counters();
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock");
        let now = now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64;
        self.harness.machine().set_time_ns(now);
        let ran = kernel();
        let outcome = interpreter(&self.harness);
        let after = Moment::of_kernel(dataplane);
        assert_eq!(
            (outcome.verdict, &outcome.packet),
            (ran.0, &ran.1),
            "verdict and frame of {program}: interpreter, kernel"
        );
        assert_eq!(
            timeless(self.image(), &before.image),
            timeless(after.image, &before.image),
            "maps after {program}: interpreter, kernel"
        );
        assert_eq!(
            moved(&own_counters, &self.counters()),
            moved(&before.counters, &after.counters),
            "counters of {program}: interpreter, kernel"
        );
        (ran, outcome)
    }

    /// Takes the records that user space has taken from the kernel's ring.
    fn take(&mut self, image: &Image) {
        const FRONT: usize = 16;
        let ring = self.harness.map("ring").expect("a ring");
        while ring.ring_positions().expect("a ring").1 < image.ring[1] {
            let before = ring.ring_positions().expect("a ring").1;
            if let Some(record) = ring.consume().expect("a ring") {
                let word = |at: usize| {
                    let word = record.bytes[at..at + 8].try_into().expect("8 bytes");
                    u64::from_le_bytes(word)
                };
                if word(0) != RECORD_NOTICE {
                    let end = FRONT + word(8) as usize;
                    self.taken.push(record.bytes[FRONT..end].to_vec());
                }
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
        let counters = dataplane.counters().expect("the counters can be read");
        Moment {
            image: dataplane.image(),
            counters: counters
                .into_iter()
                .map(|counter| ((counter.program, counter.name), counter.value))
                .collect(),
        }
    }
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
