//! Text and instructions are inverses, each dialect says what it should, and no text makes it panic.

use proptest::prelude::*;

use super::*;
use crate::asm::Assembler;
use crate::disasm::listing;
use crate::insn::{AluOp, AtomicOp, Imm64, JumpOp, Reg, Size, Width, arbitrary};
use crate::program::{Contents, Global, MapDef, MapType, Target};

fn one(text: &str) -> Insn {
    match assemble_code("test", text) {
        Ok(code) if code.len() == 1 => code[0],
        other => panic!("{text}: {other:?}"),
    }
}

fn code(text: &str) -> Vec<Insn> {
    assemble_code("test", text).unwrap_or_else(|errors| panic!("{errors}\nin:\n{text}"))
}

fn error(text: &str) -> String {
    assemble("f", text).unwrap_err().to_string()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_the_disassembler_prints_is_assembled_to_the_same(insn in arbitrary::legal()) {
        let text = insn.to_string();
        prop_assert_eq!(assemble_code("test", &text), Ok(vec![insn]), "{}", text);
    }

    #[test]
    fn any_text_is_assembled_or_refused(text in "\\PC{0,60}(\n\\PC{0,60}){0,3}") {
        let _ = assemble("test", &text);
    }

    /// Pieces of the grammar in any order come further into it than noise does.
    #[test]
    fn any_text_of_known_words_is_assembled_or_refused(words in prop::collection::vec(prop::sample::select(WORDS), 0..14)) {
        match assemble("test", &words.join(" ")) {
            Ok(assembly) => prop_assert!(!assembly.units.is_empty()),
            Err(errors) => prop_assert!(!errors.errors.is_empty()),
        }
    }

    #[test]
    fn a_listing_of_any_instructions_is_assembled_to_the_same(insns in prop::collection::vec(arbitrary::legal(), 1..20)) {
        // Jumps that end inside of a listing end at an instruction: that is a listing's promise.
        let apart = |insn: &Insn| !matches!(insn, Insn::Jump { .. } | Insn::Goto { .. } | Insn::GotoLong { .. }
            | Insn::MayGoto { .. } | Insn::CallLocal { .. }
            | Insn::LoadImm64 { value: Imm64::Function { .. }, .. });
        let insns: Vec<Insn> = insns.into_iter().filter(apart).chain([Insn::Exit]).collect();
        let line = crate::program::Line { file: "a.rs", line: 1, column: 1 };
        let function = Function {
            name: "any".into(),
            arguments: 1,
            lines: vec![line; insns.len()],
            insns,
            relocations: Vec::new(),
        };
        let assembled = assemble_code("test", &listing(&function).to_string());
        prop_assert_eq!(assembled, Ok(function.insns));
    }
}

const WORDS: &[&str] = &[
    "r0",
    "r1",
    "w2",
    "%r3",
    "r11",
    "=",
    "+=",
    "s>>=",
    "-",
    "5",
    "0x5",
    "-1",
    "99999999999999999999",
    "*(u32 *)",
    "(u64 *)",
    "(r1 +4)",
    "[%r1+4]",
    "[",
    "]",
    "(",
    ")",
    ",",
    "if",
    "s>",
    "==",
    "goto",
    "pc+1",
    "+1",
    "end",
    "end:",
    "exit",
    "call",
    "local",
    "helper",
    "bpf_ktime_get_ns#5",
    "map[",
    "fd:3",
    "[0]",
    "subprog[",
    "btf[id:",
    "lock",
    "fetch",
    "add",
    "mov32",
    "jeq",
    "lddw",
    "ldxw",
    "stxdw",
    "stb",
    "be16",
    "movsx832",
    "atomic64_fetch_add(",
    "load_acquire(",
    "store_release(",
    "addr_space_cast(",
    "skb",
    ".map",
    ".function",
    "0:",
    "(18)",
    "\n",
    ";",
    "map",
    "//",
    "#",
    "<",
    ">",
    "é",
    "ll",
    "may_goto",
    "gotol",
    "callx",
    "ja",
];

#[test]
fn both_ways_of_writing_say_the_same() {
    let pairs = [
        ("r1 += r2", "add %r1, %r2"),
        ("w1 s/= -3", "sdiv32 %r1, -3"),
        ("r1 s%= w2", ""),
        ("r1 = 5", "mov %r1, 5"),
        ("w1 = 5", "mov32 %r1, 0x5"),
        ("r1 = 0x5", "lddw %r1, 5"),
        ("r1 = 5 ll", "lddw %r1, 0x5"),
        ("r1 = -1 ll", "lddw %r1, -1"),
        ("r1 = (s16)r2", "movsx1664 %r1, %r2"),
        ("w1 = (s8)w2", "movsx832 %r1, %r2"),
        ("r1 = -r1", "neg %r1"),
        ("w1 = -w1", "neg32 %r1"),
        ("r1 = be16 r1", "be16 %r1"),
        ("r1 = bswap64 r1", "swap64 %r1"),
        ("r1 = *(u8 *)(r2 -1)", "ldxb %r1, [%r2-1]"),
        ("r1 = *(s32 *)(r2 +0)", "ldxsw %r1, [%r2]"),
        ("*(u16 *)(r2 +0x10) = -2", "sth [%r2+16], -2"),
        ("*(u64 *)(r2 + 8) = r3", "stxdw [ %r2 + 8 ], %r3"),
        ("lock *(u32 *)(r1 +4) ^= r2", "lock xor32 [%r1+4], %r2"),
        (
            "r2 = atomic64_fetch_add((u64 *)(r1 +0), r2)",
            "lock fetch add [%r1], %r2",
        ),
        (
            "r2 = atomic_xchg((u32 *)(r1 +0), r2)",
            "lock xchg32 [%r1], %r2",
        ),
        (
            "r0 = atomic64_cmpxchg((u64 *)(r1 +0), r0, r2)",
            "lock cmpxchg [%r1], %r2",
        ),
        ("if r1 s>= 0xffffffff goto pc-1", "jsge %r1, -1, -1"),
        ("if w1 & w2 goto +0x1 <main+0x10>", "jset32 %r1, %r2, +1"),
        ("goto pc+0", "ja +0"),
        ("gotol pc+70000", "ja32 +70000"),
        ("call bpf_map_lookup_elem#1", "call 1"),
        ("call bpf_map_lookup_elem", "call helper 1"),
        ("call pc+7", "call local +7"),
        ("callx r3", "call helper %r3"),
        ("callx r3", "call %r3"),
        ("call kernel-function#12", "call runtime 12"),
        ("exit", "exit ; the end"),
    ];
    for (verifier, mnemonic) in pairs {
        if mnemonic.is_empty() {
            assert!(assemble("test", verifier).is_err(), "{verifier}");
        } else {
            assert_eq!(one(verifier), one(mnemonic), "{verifier}");
        }
    }
}

#[test]
fn opcodes_decide_where_the_text_alone_does_not() {
    let mov = one("r1 = 5");
    assert_eq!(one("0: (b7) r1 = 0x5"), mov);
    assert_eq!(one("0: (18) r1 = 0x5"), one("r1 = 0x5"));
    assert_ne!(one("0: (18) r1 = 5"), mov);
    // An edited line may keep the opcode of what it was.
    assert_eq!(one("0: (95) r1 = 5"), mov);
}

#[test]
fn labels_lead_forwards_backwards_and_to_the_first_exit() {
    let text = "start: w1 = 1\nr2 = 0x1 ll\nif r1 > r2 goto done\njlt %r1, 7, start\ngoto exit\ndone:\nexit\nexit";
    let code = code(text);
    let offset = |at: usize| match code[at] {
        Insn::Jump { offset, .. } | Insn::Goto { offset } => offset,
        other => panic!("{other}"),
    };
    assert_eq!((offset(2), offset(3), offset(4)), (2, -5, 0));
}

#[test]
fn a_listing_with_lines_put_in_keeps_its_jumps() {
    let text = "0: (b7) r0 = 0\n\
        1: (15) if r1 == 0x0 goto pc+2\n\
        r0 += 5\n\
        2: (18) r0 = 0x7\n\
        4: (95) exit\n";
    let code = code(text);
    assert_eq!(
        code[1],
        Insn::Jump {
            width: Width::W64,
            op: JumpOp::Eq,
            dst: Reg::R1,
            src: 0.into(),
            offset: 3
        }
    );
    let gone = error("0: goto pc+1\n2: exit\n3: exit\n1: goto pc+2\n5: exit");
    assert!(gone.contains("f:4:4: this leads to slot 4"), "{gone}");
}

#[test]
fn a_listing_keeps_its_relocations_and_functions() {
    let mut main = Assembler::new("count");
    main.load_map(Reg::R1, "counts")
        .call_local("verdict")
        .exit();
    let mut verdict = Assembler::new("verdict");
    verdict.mov64_imm(Reg::R0, 1).exit();
    let functions = [main.finish().unwrap(), verdict.finish().unwrap()];
    let mut text = String::from(".map counts array 4 8 16 0x400\n");
    for function in &functions {
        text.push_str(&format!("{}:\n{}", function.name, listing(function)));
    }
    let assembly = assemble("test", &text).unwrap();
    assert!(text.starts_with(&map_lines(&assembly.maps[0])));
    for (unit, function) in assembly.units.iter().zip(&functions) {
        assert_eq!(unit.name, function.name);
        assert_eq!(unit.insns, function.insns);
        assert_eq!(unit.relocations, function.relocations);
    }
    assert_eq!(assembly.units.len(), 2);
    let body = text.lines().position(|line| line.ends_with("r0 = 1"));
    let body = u32::try_from(body.unwrap()).unwrap() + 1;
    assert_eq!(assembly.units[1].lines[0], body);
}

#[test]
fn functions_and_maps_are_called_by_name() {
    let text = ".function main\nr1 = map[m]\ncall other\nexit\n.function other\nr0 = 0\nexit";
    let assembly = assemble("test", text).unwrap();
    let targets: Vec<&Target> = assembly.units[0]
        .relocations
        .iter()
        .map(|r| &r.target)
        .collect();
    assert_eq!(
        targets,
        [
            &Target::Map("m".into()),
            &Target::Subprogram("other".into())
        ]
    );
    assert_eq!(
        assembly.units[0].insns[0],
        Insn::LoadImm64 {
            dst: Reg::R1,
            value: Imm64::Map
        }
    );
    // A label of the same function is a call within it.
    let flat = code("call f\nexit\nf: r0 = 0\nexit");
    assert_eq!(flat[0], Insn::CallLocal { offset: 1 });
}

#[test]
fn every_mistake_is_told_with_its_place_and_what_to_write() {
    let cases = [
        ("r0 = 1\nr11 = 2", "f:2:1: there is no register `r11`"),
        (
            "r0 = w1",
            "f:1:6: expected r1, since the whole instruction is 64 bits wide, not `w1`",
        ),
        (
            "r1 += 5000000000",
            "f:1:7: this number does not fit into 32 bits",
        ),
        ("r1 = 5000000000", "f:1:6: a move has 32 bits"),
        ("r1 =", "f:1:5: expected a value"),
        (
            "r1 = -r2",
            "f:1:7: expected r1, the register that is written",
        ),
        ("r1 = *(u24 *)(r2 +0)", "f:1:8: expected u8, u16"),
        (
            "r1 = *(u32 *)(r2 +40000)",
            "f:1:18: this offset does not fit",
        ),
        (
            "r1 = *(s64 *)(r2 +0)",
            "f:1:1: there is no such instruction: a load of 8 bytes",
        ),
        (
            "r1 = *(u8 *)skb[0]",
            "f:1:1: expected r0, where packet loads",
        ),
        ("*(s8 *)(r2 +0) = 1", "f:1:2: only loads extend a sign"),
        ("*(u8 *)(r2 +0) 1", "f:1:16: expected `=`, not `1`"),
        ("if r1 ~ 3 goto +1", "f:1:7: expected a comparison"),
        ("if r1 > 3 exit", "f:1:11: expected `goto`, not `exit`"),
        (
            "goto nowhere",
            "f:1:6: `nowhere` is no label of this function",
        ),
        ("call nobody", "f:1:6: `nobody` is neither a helper"),
        (
            "call bpf_map_lookup_elem#2",
            "f:1:6: helper 2 is bpf_map_update_elem",
        ),
        ("goto +40000", "f:1:1: this jump spans 40000 slots"),
        ("a:\na: exit", "f:2:1: there is a label `a` already"),
        (
            "1: exit\n1: exit",
            "f:2:1: two instructions of this function are numbered 1",
        ),
        (
            "exit exit",
            "f:1:6: expected the end of the line or a comment, not `exit`",
        ),
        ("mov %r0", "f:1:8: expected `,`, but the line ends"),
        ("mov %r0, 2147483648", "f:1:10: this number does not fit"),
        ("mov %r12, 1", "f:1:5: there is no register `r12`"),
        ("lock sub [%r1], %r2", "f:1:6: expected add, and, or"),
        ("lock add8 [%r1], %r2", "f:1:6: expected add, and, or"),
        (
            "stw [%r1, 5",
            "f:1:9: expected an offset such as +8, or `]`, not `,",
        ),
        (
            "lddw %r1, 18446744073709551616",
            "f:1:11: this number does not fit into 64 bits",
        ),
        ("be24 %r1", "f:1:1: `be24` is no instruction"),
        ("r1 = be24 r1", "f:1:6: expected a value"),
        ("7", "f:1:1: expected an instruction, or a slot number"),
        (
            ".map m heap 4 4 1",
            "f:1:8: expected the map's type, one of hash, array",
        ),
        (".map m array 4 -4 1", "f:1:16: the bytes of a value: 0 to"),
        (".section xdp", "f:1:1: `.section` is no directive"),
        (
            "r2 = atomic64_fetch_add((u32 *)(r1 +0), r2)",
            "f:1:25: atomic64_ goes with (u64 *)",
        ),
        (
            "r2 = atomic_fetch_sub((u32 *)(r1 +0), r2)",
            "f:1:6: `atomic_fetch_sub` is no atomic",
        ),
        (
            "r2 = atomic_fetch_add((u8 *)(r1 +0), r2)",
            "f:1:1: there is no such instruction: no atomic",
        ),
        (
            "r1 = atomic_cmpxchg((u32 *)(r1 +0), r0, r2)",
            "f:1:1: expected r0, where cmpxchg",
        ),
        ("; nothing", "f:1:1: there is no instruction in this text"),
    ];
    for (text, expected) in cases {
        let error = error(text);
        assert!(error.starts_with(expected), "{text}\n{error}\n{expected}");
    }
}

#[test]
fn several_mistakes_are_told_at_once_and_not_more_than_is_useful() {
    assert_eq!(
        error("nop\nr0 = 1\n  foo\ngoto x").lines().count(),
        3,
        "{}",
        error("nop\nr0 = 1\n  foo\ngoto x")
    );
    let many = error(&"nop\n".repeat(1000));
    assert_eq!(many.lines().count(), MAX_ERRORS + 1);
    assert!(many.ends_with("too many errors; the rest was not read"));
}

#[test]
fn columns_count_characters() {
    assert!(error("r0 = 1 ; é\nif é").starts_with("f:2:4: expected a register"));
}

#[test]
fn plain_code_refuses_what_needs_a_loader() {
    let refused = |text: &str| assemble_code("f", text).unwrap_err().to_string();
    assert!(refused("r0 = 0\nr1 = map[m]").starts_with("f:2:1: plain code can't refer to a map"));
    let two = refused(".function a\nexit\n.function b\nexit");
    assert!(two.starts_with("f:4:1: a second function"), "{two}");
}

#[test]
fn every_operation_has_a_mnemonic() {
    let names = [
        "add", "sub", "mul", "div", "sdiv", "or", "and", "lsh", "rsh", "mod", "smod", "xor", "mov",
        "arsh",
    ];
    let found = names.map(|name| match one(&format!("{name}64 %r1, %r2")) {
        Insn::Alu {
            op,
            width: Width::W64,
            ..
        } => op,
        other => panic!("{other}"),
    });
    assert!(AluOp::ALL.iter().all(|op| found.contains(op)));
    let names = [
        "jeq", "jne", "jgt", "jge", "jlt", "jle", "jset", "jsgt", "jsge", "jslt", "jsle",
    ];
    let found = names.map(|name| match one(&format!("{name}32 %r1, 1, +1")) {
        Insn::Jump {
            op,
            width: Width::W32,
            ..
        } => op,
        other => panic!("{other}"),
    });
    assert!(JumpOp::ALL.iter().all(|op| found.contains(op)));
    let names = [
        "add",
        "and",
        "or",
        "xor",
        "fetch add",
        "fetch and",
        "fetch or",
        "fetch xor",
        "xchg",
        "cmpxchg",
    ];
    let found = names.map(|name| match one(&format!("lock {name}32 [%r1], %r2")) {
        Insn::Atomic {
            op, size: Size::W, ..
        } => op,
        other => panic!("{other}"),
    });
    assert!(
        AtomicOp::ALL
            .iter()
            .all(|op| op.any_size() || found.contains(op))
    );
}

#[test]
fn every_map_is_a_line_of_text_and_back() {
    for (number, map_type) in (1..).zip(MapType::ALL) {
        let map = |name: &str, flags, contents| MapDef {
            name: name.to_owned(),
            map_type,
            key_size: 4,
            value_size: 8 * number,
            max_entries: 1 << number,
            flags,
            contents,
        };
        let global = |name: &str, offset, bytes: &[u8]| Global {
            name: name.to_owned(),
            offset,
            bytes: bytes.to_vec(),
        };
        let globals = vec![global("a", 0, &[0, 1, 0xff]), global("b", 3, &[0; 5])];
        for map in [
            map("plain", 0, Contents::Empty),
            map("flags", 0x8000_0400, Contents::Empty),
            map(".data", 0, Contents::Globals(globals)),
            map(
                "outer",
                1,
                Contents::Maps(Box::new(map("inner", 2, Contents::Empty))),
            ),
        ] {
            let text = map_lines(&map);
            let assembly = assemble("test", &format!("{text}exit")).unwrap();
            assert_eq!(assembly.maps, [map], "{text}");
        }
    }
}
