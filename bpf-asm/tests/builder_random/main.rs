//! Random programs written with the typed builder: the kernel loads every one of them, and computes what Rust computes; so
//! do the interpreter and, for every other program, rbpf; those are without callbacks, budgets, the table, and bytes that are loaded by a
//! helper, which rbpf doesn't have.
//!
//! `BUILDER_SEED=7` runs one seed alone, `BUILDER_SECONDS` as many as there is time for. On a kernel without 64-bit
//! atomics, may_goto, or the newest of the helpers, programs do without.

mod case;
mod native;
mod statement;
mod writer;

use std::time::{Duration, Instant};

use aya::EbpfLoader;
use bpf_asm::builder::{Array, Hash};
use bpf_asm::object::Object;
use zerocopy::byteorder::{LE, U64};

use case::{Case, Has};

const MOST_VARIABLES: usize = 14;
const SLOTS: usize = 3;
/// Keys of the hash map; those below [`PRESENT`] are there when a program begins.
const KEYS: usize = 4;
const PRESENT: usize = 2;
/// The first operation of a computation that divides.
const DIVIDE: usize = 11;
const SEEDS: u64 = 3_000;
/// Programs in one object: loading an object takes longer than loading a program.
const BATCH: u64 = 50;
/// The same where time is short, and everything takes long.
const TIMED_BATCH: u64 = 5;

#[repr(C)]
struct Packet {
    values: [U64<LE>; MOST_VARIABLES],
}

#[repr(C)]
struct Counter {
    value: u64,
}

#[repr(C)]
struct Cells {
    cells: [Counter; 4],
}

const CELLS: Array<Cells> = Array::new("cells", 1);
const TABLE: Hash<u32, u64> = Hash::new("table", 64);

/// What a callback works on.
#[repr(C)]
struct Sum {
    sum: u64,
    step: u64,
}

/// The seeds, in batches: as many as asked for, or until the time is over.
fn batches() -> impl Iterator<Item = Vec<u64>> {
    let variable = |name| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let seconds: Option<u64> = variable("BUILDER_SECONDS");
    let (from, to) = match variable("BUILDER_SEED") {
        Some(seed) => (seed, seed + 1),
        None if seconds.is_some() => (0, u64::MAX),
        None => (0, SEEDS),
    };
    let size = if seconds.is_some() {
        TIMED_BATCH
    } else {
        BATCH
    };
    let began = Instant::now();
    let in_time = move || seconds.is_none_or(|limit| began.elapsed() < Duration::from_secs(limit));
    (from..to)
        .step_by(usize::try_from(size).unwrap())
        .take_while(move |first| *first == from || in_time())
        .map(move |first| (first..to.min(first + size)).collect())
}

#[test]
fn random_programs_load_and_agree_with_rust() {
    let has = Has::of_the_kernel();
    let mut programs_run = 0;
    for seeds in batches() {
        let cases = seeds.iter().map(|&seed| Case::new(seed, has));
        let mut cases: Vec<Case> = cases.collect();
        let object = cases.iter().fold(Object::new("GPL"), |object, case| {
            object.program(case.program())
        });
        let loader = EbpfLoader::new().btf(None).load(&object.to_elf().unwrap());
        let mut ebpf = loader.unwrap();
        for case in &mut cases {
            case.check(&mut ebpf);
            programs_run += 1;
        }
    }
    let atomics = if has.atomics { "" } else { ", without atomics" };
    let helpers = if has.helpers {
        ""
    } else {
        ", without the newest helpers"
    };
    let budget = if has.budget { "" } else { ", without may_goto" };
    println!("{programs_run} random programs of the builder{atomics}{helpers}{budget}");
}
