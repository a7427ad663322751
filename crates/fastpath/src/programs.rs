//! The programs, and the maps that they share.
//!
//! `dispatch` is attached to XDP and goes on in `prepare` or `prepare_ok` through a jump table, so that each can be left out;
//! `broadcast` is attached to TC egress. What each must do is docs/fast-path.md; the order of the steps there is the order here.

mod broadcast;
mod dispatch;
mod frames;
mod header;
mod prepare;
mod prepare_ok;
mod siphash;

use bpf_asm::builder::{
    Array, BuildError, Field, Function, Kind, ProgArray, Ptr, RingBuf, XDP_PASS,
};
use bpf_asm::field;
use bpf_asm::object::{Object, ObjectError};
use bpf_asm::program::Program;

use crate::abi::{Heard, PEERS, RING_BYTES, SLOTS, Shared, Target};
use crate::counters::Counters;

const SHARED: Array<Shared> = Array::new("shared", 1).mmapable();
const SLOT_WORDS: Array<u64> = Array::new("slots", SLOTS).mmapable();
const HEARD: Array<Heard> = Array::new("heard", PEERS as u32).mmapable();
const TARGETS: Array<Target> = Array::new("targets", PEERS as u32).mmapable();
const COUNTERS: Array<Counters> = Array::per_cpu("counters", 1);
const RING: RingBuf = RingBuf::new("ring", RING_BYTES);
const PROGRAMS: ProgArray = ProgArray::new("programs", 2);

/// Index of `prepare` in the jump table.
pub const PROGRAM_PREPARE: u32 = 0;
/// Index of `prepare_ok` in the jump table.
pub const PROGRAM_PREPARE_OK: u32 = 1;

/// The names of the programs.
pub const NAMES: [&str; 4] = ["dispatch", "prepare", "prepare_ok", "broadcast"];

/// Why the object can't be made: a defect of the programs or of bpf-asm.
#[derive(Debug, thiserror::Error)]
pub enum ProgramsError {
    /// A program breaks a rule of the builder.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The object can't be written.
    #[error(transparent)]
    Object(#[from] ObjectError),
}

/// Builds one program by name; None when there is no such program.
///
/// # Errors
/// See [`ProgramsError`].
pub fn build(name: &str) -> Option<Result<Program, BuildError>> {
    Some(match name {
        "dispatch" => dispatch::build(),
        "prepare" => prepare::build(),
        "prepare_ok" => prepare_ok::build(),
        "broadcast" => broadcast::build(),
        _ => return None,
    })
}

/// An object of these programs, with the Rust source lines for readable listings and verifier logs.
///
/// # Errors
/// See [`ProgramsError`].
pub fn object_of(programs: Vec<Program>) -> Result<Vec<u8>, ProgramsError> {
    let mut object = Object::new("Dual MIT/GPL").sources(SOURCES);
    for program in programs {
        object = object.program(program);
    }
    Ok(object.to_elf()?)
}

/// The object of all programs.
///
/// # Errors
/// See [`ProgramsError`].
pub fn object() -> Result<Vec<u8>, ProgramsError> {
    object_of(vec![
        dispatch::build()?,
        prepare::build()?,
        prepare_ok::build()?,
        broadcast::build()?,
    ])
}

/// The texts behind the object's line numbers.
pub const SOURCES: &[(&str, &str)] = &[
    ("fastpath/src/programs.rs", include_str!("programs.rs")),
    (
        "fastpath/src/programs/broadcast.rs",
        include_str!("programs/broadcast.rs"),
    ),
    (
        "fastpath/src/programs/dispatch.rs",
        include_str!("programs/dispatch.rs"),
    ),
    (
        "fastpath/src/programs/frames.rs",
        include_str!("programs/frames.rs"),
    ),
    (
        "fastpath/src/programs/header.rs",
        include_str!("programs/header.rs"),
    ),
    (
        "fastpath/src/programs/prepare.rs",
        include_str!("programs/prepare.rs"),
    ),
    (
        "fastpath/src/programs/prepare_ok.rs",
        include_str!("programs/prepare_ok.rs"),
    ),
    (
        "fastpath/src/programs/siphash.rs",
        include_str!("programs/siphash.rs"),
    ),
];

/// Counts one on this CPU.
#[track_caller]
fn count<'f, K: Kind>(f: Function<'f, K>, field: Field<Counters, u64>) {
    add(f, field, 1);
}

#[track_caller]
fn add<'f, K: Kind>(f: Function<'f, K>, field: Field<Counters, u64>, n: u64) {
    // The one entry is always there; the verifier wants to see it asked.
    let counters = COUNTERS.lookup(f, 0u32, || f.ret(XDP_PASS));
    counters.store(field, counters.load(field) + n);
}

/// Counts and ends the program.
#[track_caller]
fn leave<'f, K: Kind>(f: Function<'f, K>, field: Field<Counters, u64>, action: u32) {
    count(f, field);
    f.ret(action);
}

/// The words that everybody shares.
#[track_caller]
fn shared<'f, K: Kind>(f: Function<'f, K>) -> Ptr<'f, Shared> {
    SHARED.lookup(f, 0u32, || f.ret(XDP_PASS))
}

/// The tail, read by a fully ordered atomic.
#[track_caller]
fn ordered_tail<'f>(shared: Ptr<'f, Shared>) -> bpf_asm::builder::Val<'f, u64> {
    shared.fetch_add(field!(Shared, tail), 0u64)
}
