//! Programs mean the same in fewer instructions: random ones in the kernel, as they were written and as they were lowered.
//! `LOWER_SEED=7` runs one seed alone. Needs root, and says so loudly without it.

use std::os::unix::fs::MetadataExt;

use aya::programs::{TestRun, TestRunOptions, Xdp};
use bpf_asm::asm::Assembler;
use bpf_asm::harness::Harness;
use bpf_asm::insn::{AluOp, AtomicOp, Insn, JumpOp, Reg, Size, Source, Width};
use bpf_asm::object::Object;
use bpf_asm::program::{Function, Program, ProgramKind};
use bpf_asm::target::{Answer, Feature, LowerErrorKind, Target};

const SEEDS: u64 = 12;
/// Words of the frame that programs work on.
const WORDS: usize = 4;
const PACKET_BYTES: usize = 64;

/// xorshift64*: a generator that needs no crate.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 33) as usize % end
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn reg(&mut self) -> Reg {
        Reg::new(self.below(10) as u8).unwrap()
    }

    fn other_than(&mut self, not: Reg) -> Reg {
        loop {
            let reg = self.reg();
            if reg != not {
                return reg;
            }
        }
    }

    fn imm(&mut self) -> i32 {
        let any = self.next() as i32;
        self.of(&[any, 1, -1, 2, 7, -7, i32::MIN, i32::MAX, 0x80, -0x80])
    }

    fn source(&mut self) -> Source {
        if self.below(2) == 0 {
            self.reg().into()
        } else {
            self.imm().into()
        }
    }

    fn width(&mut self) -> Width {
        self.of(&[Width::W32, Width::W64])
    }

    fn word(&mut self) -> i16 {
        -8 * (1 + self.below(WORDS) as i16)
    }
}

/// Random instructions on registers and a frame that are filled from the packet; the answer depends on some of them.
fn program(seed: u64) -> Function {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut a = Assembler::new("random");
    let long_enough = a.label();
    a.ldx_w(Reg::R2, Reg::R1, 0).ldx_w(Reg::R3, Reg::R1, 4);
    a.mov64(Reg::R4, Reg::R2)
        .add64_imm(Reg::R4, PACKET_BYTES as i32);
    a.jle64(Reg::R4, Reg::R3, long_enough);
    a.mov64_imm(Reg::R0, 0).exit();
    a.bind(long_enough).mov64(Reg::R9, Reg::R2);
    for number in (0..9).map(|number| Reg::new(number).unwrap()) {
        let offset = 8 * i16::from(number.number() % 8);
        a.ldx_dw(number, Reg::R9, offset);
    }
    a.mov64(Reg::R9, Reg::R0).xor64_imm(Reg::R9, 0x5555);
    for word in 1..=WORDS as i16 {
        a.stx_dw(Reg::R10, -8 * word, Reg::new(word as u8).unwrap());
    }
    for _ in 0..8 + random.below(25) {
        instruction(&mut a, &mut random);
    }
    // Registers that don't count may be used as scratch.
    let counting = 1 + random.below(10);
    for number in (1..counting).map(|number| Reg::new(number as u8).unwrap()) {
        a.mul64_imm(Reg::R0, 31).xor64(Reg::R0, number);
    }
    for word in 1..=WORDS as i16 {
        a.ldx_dw(Reg::R1, Reg::R10, -8 * word);
        a.mul64_imm(Reg::R0, 31).xor64(Reg::R0, Reg::R1);
    }
    a.mov64(Reg::R1, Reg::R0).rsh64_imm(Reg::R1, 32);
    a.xor64(Reg::R0, Reg::R1).exit();
    a.finish().unwrap()
}

fn instruction(a: &mut Assembler, random: &mut Random) {
    let (dst, base) = (random.reg(), Reg::R10);
    match random.below(12) {
        0 | 1 => {
            let op = random.of(&[AluOp::SDiv, AluOp::SMod]);
            let (width, src) = (random.width(), random.source());
            a.emit(Insn::Alu {
                width,
                op,
                dst,
                src,
            });
        }
        2 => {
            let (width, op) = (Width::W32, AluOp::Mod);
            let src = random.reg().into();
            a.emit(Insn::Alu {
                width,
                op,
                dst,
                src,
            });
        }
        3 => {
            let (bits, width) = random.of(&[
                (8, Width::W32),
                (16, Width::W32),
                (8, Width::W64),
                (16, Width::W64),
                (32, Width::W64),
            ]);
            let src = random.reg();
            a.emit(Insn::MovSx {
                width,
                bits,
                dst,
                src,
            });
        }
        4 => {
            let (size, offset) = (random.of(&[Size::B, Size::H, Size::W]), random.word());
            let signed = true;
            a.emit(Insn::Load {
                size,
                signed,
                dst,
                base,
                offset,
            });
        }
        5 => {
            match random.below(3) {
                0 => a.bswap16(dst),
                1 => a.bswap32(dst),
                _ => a.bswap64(dst),
            };
        }
        6 => {
            let width = random.width();
            a.emit(Insn::Neg { width, dst });
        }
        7 | 8 => {
            let op = random.of(&AtomicOp::ALL);
            let size = random.of(&[Size::W, Size::DW]);
            let (offset, src) = (random.word(), dst);
            a.emit(Insn::Atomic {
                size,
                op,
                base,
                offset,
                src,
            });
        }
        9 => {
            let (op, src) = (random.of(&JumpOp::ALL), random.source());
            let width = random.width();
            let next = a.label();
            a.jump(width, op, dst, src, next);
            let other = random.other_than(dst);
            a.add64(dst, other).bind(next);
        }
        10 => {
            let (width, src) = (random.width(), random.source());
            let op = random.of(&[AluOp::Add, AluOp::Sub, AluOp::Mul, AluOp::Xor, AluOp::Div]);
            a.emit(Insn::Alu {
                width,
                op,
                dst,
                src,
            });
        }
        _ => {
            let next = a.label();
            a.xor64_imm(dst, 99).gotol(next).bind(next);
        }
    }
}

fn answers(function: &Function, packets: &[[u8; PACKET_BYTES]]) -> Vec<u32> {
    let program = whole(function.clone());
    let listing = bpf_asm::disasm::listing(function).to_string();
    let elf = Object::new("GPL").program(program).to_elf().unwrap();
    let mut ebpf = aya::Ebpf::load(&elf).unwrap();
    let loaded: &mut Xdp = ebpf.program_mut("random").unwrap().try_into().unwrap();
    if let Err(error) = loaded.load() {
        panic!("{error}\n{listing}");
    }
    let answer = |packet: &[u8; PACKET_BYTES]| {
        let options = TestRunOptions {
            data_in: Some(packet),
            ..TestRunOptions::default()
        };
        loaded.test_run(options).unwrap().return_value
    };
    packets.iter().map(answer).collect()
}

fn whole(main: Function) -> Program {
    Program {
        kind: ProgramKind::Xdp,
        main,
        subprograms: Vec::new(),
        maps: Vec::new(),
    }
}

/// What the reference interpreter answers.
fn interpreted(function: &Function, packets: &[[u8; PACKET_BYTES]]) -> Vec<u32> {
    let harness = Harness::new([whole(function.clone())]).unwrap();
    let answer = |packet: &[u8; PACKET_BYTES]| match harness.xdp("random", packet.to_vec()) {
        Ok(outcome) => outcome.verdict,
        Err(fault) => panic!("{fault}\n{}", bpf_asm::disasm::listing(function)),
    };
    packets.iter().map(answer).collect()
}

/// Zeros, ones, and two that are random.
fn packets(seed: u64) -> Vec<[u8; PACKET_BYTES]> {
    let mut random = Random(seed + 77);
    let bytes = |kind: u8, random: &mut Random| match kind {
        0 => 0,
        1 => 0xff,
        _ => random.next() as u8,
    };
    (0..4)
        .map(|kind| std::array::from_fn(|_| bytes(kind, &mut random)))
        .collect()
}

fn seeds(many: u64) -> std::ops::Range<u64> {
    match std::env::var("LOWER_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("LOWER_SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..many,
    }
}

/// The program as written, and lowered to the poorest targets.
fn variants(seed: u64) -> [Function; 3] {
    let written = program(seed);
    let lowered = [Target::common(), Target::rbpf()].map(|target| {
        let lowered = target.lower_function(&written).unwrap();
        // A remainder stays, with the clearing behind it.
        let lacking = |insn| {
            Feature::of(insn)
                .is_some_and(|feature| !target.has(feature) && feature != Feature::RemainderClears)
        };
        assert!(!lowered.insns.iter().any(lacking), "seed {seed}");
        assert!(lowered.insns.len() >= written.insns.len(), "seed {seed}");
        lowered
    });
    let [common, rbpf] = lowered;
    [written, common, rbpf]
}

#[test]
fn lowered_programs_compute_what_they_did_on_the_interpreter() {
    for seed in seeds(1000) {
        let packets = packets(seed);
        let [written, common, rbpf] = variants(seed);
        let expected = interpreted(&written, &packets);
        for lowered in [common, rbpf] {
            let listing = bpf_asm::disasm::listing(&written);
            assert_eq!(
                interpreted(&lowered, &packets),
                expected,
                "seed {seed}:\n{listing}"
            );
        }
    }
}

#[test]
fn lowered_programs_compute_in_the_kernel_what_they_did() {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        let note = b"SKIPPED: loading programs needs root\n";
        let _ = std::io::Write::write_all(&mut std::io::stderr(), note);
        return;
    }
    let probed = Target::probe(|program| Ok::<_, String>(load(program))).unwrap();
    for seed in seeds(SEEDS) {
        let packets = packets(seed);
        let [written, common, rbpf] = variants(seed);
        let expected = interpreted(&written, &packets);
        for function in [probed.lower_function(&written).unwrap(), common, rbpf] {
            let listing = bpf_asm::disasm::listing(&function);
            assert_eq!(
                answers(&function, &packets),
                expected,
                "seed {seed}:\n{listing}"
            );
        }
    }
}

/// Signed divisions and remainders of the frame's first two words, by register and by immediates, in both widths.
fn divisions(dst: Reg, src: Reg) -> Function {
    let mut a = Assembler::new("random");
    let long_enough = a.label();
    a.ldx_w(Reg::R2, Reg::R1, 0).ldx_w(Reg::R3, Reg::R1, 4);
    a.mov64(Reg::R4, Reg::R2).add64_imm(Reg::R4, 16);
    a.jle64(Reg::R4, Reg::R3, long_enough);
    a.mov64_imm(Reg::R0, 0).exit();
    a.bind(long_enough);
    a.mov64(Reg::R8, Reg::R2).mov64_imm(Reg::R9, 0);
    let immediates = [-1, 1, 7, -7, i32::MIN, i32::MAX].map(Source::Imm);
    for width in [Width::W32, Width::W64] {
        for op in [AluOp::SDiv, AluOp::SMod] {
            for by in [Source::Reg(src)].into_iter().chain(immediates) {
                a.ldx_dw(src, Reg::R8, 8).ldx_dw(dst, Reg::R8, 0);
                a.emit(Insn::Alu {
                    width,
                    op,
                    dst,
                    src: by,
                });
                a.mul64_imm(Reg::R9, 31).xor64(Reg::R9, dst);
            }
        }
    }
    a.mov64(Reg::R0, Reg::R9).rsh64_imm(Reg::R9, 32);
    a.xor64(Reg::R0, Reg::R9).exit();
    a.finish().unwrap()
}

/// By RFC 9669: by 0 gives 0 and leaves the dividend, the smallest by -1 gives itself and 0, 32 bits are zero-extended.
fn divided(a: u64, b: u64) -> u32 {
    let mut sum = 0u64;
    let mut add = |result: u64| sum = sum.wrapping_mul(31) ^ result;
    let by = |b: u64| {
        let immediates = [-1i64, 1, 7, -7, i32::MIN.into(), i32::MAX.into()];
        [b].into_iter().chain(immediates.map(i64::cast_unsigned))
    };
    let narrow = |value: u64| (value as u32).cast_signed();
    for b in by(b) {
        let (a, b) = (narrow(a), narrow(b));
        let quotient = if b == 0 { 0 } else { a.wrapping_div(b) };
        add(quotient.cast_unsigned().into());
    }
    for b in by(b) {
        let (a, b) = (narrow(a), narrow(b));
        let rest = if b == 0 { a } else { a.wrapping_rem(b) };
        add(rest.cast_unsigned().into());
    }
    let (a, signed) = (a.cast_signed(), u64::cast_signed);
    for b in by(b).map(signed) {
        let quotient = if b == 0 { 0 } else { a.wrapping_div(b) };
        add(quotient.cast_unsigned());
    }
    for b in by(b).map(signed) {
        let rest = if b == 0 { a } else { a.wrapping_rem(b) };
        add(rest.cast_unsigned());
    }
    (sum ^ sum >> 32) as u32
}

/// Registers of which native code wants some for division itself: r0 and r3 are rax and rdx on x86-64.
#[test]
fn signed_division_at_its_edges_is_that_of_rfc_9669_everywhere() {
    let edges: Vec<u64> = [0, 1, -1, 2, -2, 7, -7, i64::MAX, i64::MIN]
        .into_iter()
        .chain([i32::MAX.into(), i32::MIN.into(), i64::from(i32::MIN) - 1])
        .map(i64::cast_unsigned)
        .chain([0x8000_0000, 0xffff_ffff, 1 << 32, 0x1_ffff_ffff])
        .collect();
    let pairs = edges
        .iter()
        .flat_map(|a| edges.iter().map(move |b| (*a, *b)));
    let packet = |(a, b): (u64, u64)| {
        let mut packet = [0; PACKET_BYTES];
        packet[..8].copy_from_slice(&a.to_le_bytes());
        packet[8..16].copy_from_slice(&b.to_le_bytes());
        packet
    };
    let packets: Vec<_> = pairs.clone().map(packet).collect();
    let expected: Vec<u32> = pairs.map(|(a, b)| divided(a, b)).collect();
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let probed = is_root.then(|| Target::probe(|program| Ok::<_, String>(load(program))).unwrap());
    for (dst, src) in [
        (Reg::R0, Reg::R3),
        (Reg::R3, Reg::R0),
        (Reg::R6, Reg::R7),
        (Reg::R5, Reg::R0),
    ] {
        let written = divisions(dst, src);
        let lowered = Target::common().lower_function(&written).unwrap();
        for function in [&written, &lowered] {
            assert_eq!(
                interpreted(function, &packets),
                expected,
                "{dst:?}, {src:?}"
            );
        }
        let Some(probed) = &probed else {
            continue;
        };
        let native = probed.lower_function(&written).unwrap();
        for function in [&native, &lowered] {
            assert_eq!(answers(function, &packets), expected, "{dst:?}, {src:?}");
        }
    }
}

fn load(program: &Program) -> Answer {
    let object = Object::new("GPL").program(program.clone());
    let mut ebpf = aya::Ebpf::load(&object.to_elf().unwrap()).unwrap();
    let name = &program.main.name;
    let loaded = match program.kind {
        ProgramKind::Classifier => {
            let program: &mut aya::programs::SchedClassifier =
                ebpf.program_mut(name).unwrap().try_into().unwrap();
            program.load()
        }
        ProgramKind::Xdp | ProgramKind::XdpFrags => {
            let program: &mut Xdp = ebpf.program_mut(name).unwrap().try_into().unwrap();
            program.load()
        }
    };
    match loaded {
        Ok(()) => Answer::Loaded,
        Err(aya::programs::ProgramError::LoadError { verifier_log, .. }) => {
            Answer::Refused(verifier_log.to_string())
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_program_without_what_a_target_lacks_stays_as_it_is() {
    let mut a = Assembler::new("plain");
    a.mov64_imm(Reg::R0, 2).exit();
    let function = a.finish().unwrap();
    assert_eq!(Target::rbpf().lower_function(&function).unwrap(), function);
}

#[test]
fn what_nothing_replaces_is_an_error_at_its_rust_line() {
    let mut a = Assembler::new("budget");
    let next = a.label();
    a.mov64_imm(Reg::R0, 2);
    let line = line!() + 1;
    a.may_goto(next);
    a.bind(next).exit();
    let error = Target::common()
        .lower_function(&a.finish().unwrap())
        .unwrap_err();
    let feature = Feature::MayGoto;
    assert_eq!(error.kind, LowerErrorKind::Missing { feature });
    assert_eq!((error.line.file, error.line.line), (file!(), line));
    assert!(error.to_string().contains("no may_goto"), "{error}");
}

#[test]
fn a_jump_over_what_grew_too_far_is_an_error() {
    let mut a = Assembler::new("far");
    let far = a.label();
    a.mov64_imm(Reg::R0, 2).mov64_imm(Reg::R1, 5);
    a.jeq64_imm(Reg::R0, 0, far);
    for _ in 0..11_000 {
        a.movsx64_8(Reg::R1, Reg::R1);
    }
    a.bind(far).exit();
    let function = a.finish().unwrap();
    let error = Target::common().lower_function(&function).unwrap_err();
    assert_eq!(error.kind, LowerErrorKind::JumpTooFar);
}
