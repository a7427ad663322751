//! The bodies of the fuzz targets, for a bounded number of inputs: random ones, and ones that look like what is expected.

#[path = "../fuzz/bodies.rs"]
mod bodies;

use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;

/// Programs that the kernel is shown. Most of them don't even decode, since fields that must be 0 aren't; it takes at least this
/// many (`tests/engines_random.rs` has thousands that are made to be taken).
const KERNEL_CASES: u32 = 4000;
const KERNEL_TAKES: u32 = 20;
const KERNEL_CODE: usize = 16;

/// Slots whose opcodes exist more often than not, with the fields that decide: small offsets and numbers.
fn slots() -> impl Strategy<Value = Vec<u8>> {
    const OPCODES: &[u8] = &[
        0x04, 0x07, 0x0c, 0x0f, 0x1f, 0x27, 0x37, 0x3f, 0x94, 0x97, 0x9c, 0x9f, 0xb4, 0xb7, 0xbc,
        0xbf, 0xc7, 0xd4, 0xdc, 0xd7, 0x87, 0x84, 0x05, 0x06, 0x15, 0x16, 0x1d, 0x25, 0x2e, 0x45,
        0x5d, 0x65, 0x6d, 0xa5, 0xb6, 0xcd, 0xd5, 0xe5, 0x85, 0x8d, 0x95, 0x18, 0x20, 0x28, 0x40,
        0x61, 0x69, 0x71, 0x79, 0x81, 0x89, 0x91, 0x62, 0x6a, 0x72, 0x7a, 0x63, 0x6b, 0x73, 0x7b,
        0xc3, 0xdb, 0xd3,
    ];
    let opcode = prop_oneof![9 => select(OPCODES), 1 => any::<u8>()];
    let registers = (0..=10u8, prop_oneof![Just(0u8), 0..=10u8]);
    let offset = prop_oneof![Just(0i16), -4..4i16, select(&[8i16, 16, 32, -8, -16][..])];
    let imm = prop_oneof![
        Just(0i32),
        -4..12i32,
        select(
            &[
                16,
                32,
                64,
                0x40,
                0x50,
                0xe1,
                0xf1,
                0x100,
                0x110,
                -1,
                i32::MIN
            ][..]
        ),
        any::<i32>()
    ];
    let slot = (opcode, registers, offset, imm).prop_map(|(opcode, (dst, src), offset, imm)| {
        let mut slot = vec![opcode, src << 4 | dst];
        slot.extend(offset.to_le_bytes());
        slot.extend(imm.to_le_bytes());
        // A load of 64 bits is followed by the rest of its number.
        if opcode == 0x18 {
            slot.extend([0; 8]);
        }
        slot
    });
    prop::collection::vec(slot, 1..12).prop_map(|slots| slots.concat())
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![slots(), prop::collection::vec(any::<u8>(), 0..100)]
}

/// A line of a verifier log, more or less.
fn log_line() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9]{1,3}: \\([0-9a-f]{2}\\) r[0-9] = r[0-9]( ; (frame1: )?R[0-9]{1,2}(_w)?=[a-z(=,)0-9 ]{0,12}){0,2}",
        "from [0-9]{1,2} to [0-9]{1,2}: R0=ctx\\(\\) fp-8=m{0,8}",
        "(R1|regs|caller|[0-9]+|;|:| )[ :=(]{0,3}\\PC{0,20}",
        "\\PC{0,40}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_decode_or_have_a_place_where_they_do_not(data in bytes()) {
        bodies::decode(&data);
    }

    #[test]
    fn what_decodes_is_printed_and_assembled_again(data in bytes()) {
        bodies::disassemble(&data);
    }

    #[test]
    fn text_is_assembled_or_refused(text in prop_oneof![
        "([rw]1[01]?|0x[0-9a-f]{1,17}|if|goto|call|lock|exit|\\*\\(u(8|64) \\*\\)|\\(r1 [+-][0-9]{1,6}\\)|[-+*/=<>&|^]{1,3}|[a-z]{2,6}32|%r2|\\[%r1\\]|,|;|:|\n| ){1,20}",
        "\\PC{0,80}",
    ]) {
        bodies::assemble(text.as_bytes());
    }

    #[test]
    fn bytes_are_text_too(data in bytes()) {
        bodies::assemble(&data);
    }

    #[test]
    fn code_on_the_interpreter_ends(length in 0..32u8, memory in any::<[u8; 32]>(), code in slots()) {
        let mut data = vec![length];
        data.extend(&memory[..usize::from(length)]);
        data.extend(code);
        bodies::interpret(&data);
    }

    #[test]
    fn programs_of_the_builder_compute_what_rust_computes(data in prop::collection::vec(any::<u8>(), 32..160)) {
        bodies::builder(&data);
    }

    #[test]
    fn any_log_is_explained(lines in prop::collection::vec(log_line(), 0..30)) {
        bodies::explain(lines.join("\n").as_bytes());
    }
}

/// Code that begins with every register known, so that the kernel takes some of it.
#[test]
fn code_that_the_kernel_takes_ends_as_on_the_interpreter() {
    let status = std::fs::read_to_string("/proc/self/status");
    if !status.is_ok_and(|status| status.contains("\nUid:\t0\t")) {
        eprintln!("SKIPPED: code in the kernel needs root");
        return;
    }
    let known: Vec<u8> = (3..10u8)
        .chain([0])
        .flat_map(|register| [0xb7, register, 0, 0, register.wrapping_mul(37), 1, 0, 0x80])
        .collect();
    let exit = [0x95, 0, 0, 0, 0, 0, 0, 0];
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut taken = 0;
    for _ in 0..KERNEL_CASES {
        let mut code = slots().new_tree(&mut runner).expect("a value").current();
        // The longer, the more there is to refuse.
        code.truncate(KERNEL_CODE);
        let data = [&[7; 32][..], &known, &code, &exit].concat();
        taken += u32::from(bodies::against_kernel(&data));
    }
    assert!(taken >= KERNEL_TAKES, "the kernel took {taken}");
}
