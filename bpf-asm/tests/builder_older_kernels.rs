//! What verifiers older than the one at hand insist on, looked for in the instructions. Found by running on Linux 6.1.

use bpf_asm::builder::{Array, TC_ACT_OK, Var, XDP_DROP, XDP_PASS, classifier, xdp};
use bpf_asm::field;
use bpf_asm::insn::{AluOp, Insn, JumpOp, Size, Source};

#[test]
fn the_context_is_written_from_registers_and_never_with_a_constant() {
    let program = classifier("mark", |f| {
        f.set_mark(0x1234u32);
        f.ret(TC_ACT_OK);
    })
    .unwrap();
    let stores: Vec<_> = program
        .main
        .insns
        .iter()
        .filter_map(|insn| match insn {
            Insn::Store { offset: 8, src, .. } => Some(*src),
            _ => None,
        })
        .collect();
    assert!(
        matches!(stores[..], [Source::Reg(_)]),
        "{}",
        bpf_asm::disasm::listing(&program.main)
    );
}

#[repr(C)]
struct Element {
    words: [u64; 3],
}

#[repr(C)]
struct Elements {
    all: [Element; 16],
}

/// More values live at once than there are registers, so that the index is in the frame when it is used.
#[test]
fn an_index_from_the_frame_is_not_loaded_again_between_its_check_and_its_use() {
    const ELEMENTS: Array<Elements> = Array::new("elements", 1);
    let program = xdp("index", |f| {
        let packet = f.packet();
        let words = packet.view::<[u8; 24]>(0, || f.ret(XDP_DROP));
        let index = words.element(0).read().widen::<u64>();
        let more: Vec<Var<'_, u64>> = (1..24)
            .map(|at| f.var(words.element(at).read().widen::<u64>()))
            .collect();
        let elements = ELEMENTS.lookup(f, 0, || f.ret(XDP_DROP));
        let element = elements
            .at(field!(Elements, all))
            .index(index, || f.ret(XDP_DROP));
        let mut sum = element.at(field!(Element, words)).element(0).read() + index;
        for each in &more {
            sum = sum + each.get();
        }
        f.if_(sum.eq(0u64), || f.ret(XDP_PASS));
        f.ret(XDP_DROP);
    })
    .unwrap();
    let insns = &program.main.insns;
    let listing = bpf_asm::disasm::listing(&program.main).to_string();
    // The comparison with the last element's distance, by the constant that only it has.
    let check = insns
        .iter()
        .position(|insn| {
            matches!(
                insn,
                Insn::Jump {
                    op: JumpOp::Gt | JumpOp::Le,
                    src: Source::Imm(360),
                    ..
                }
            )
        })
        .unwrap_or_else(|| panic!("no check of the distance\n{listing}"));
    let Insn::Jump { dst: checked, .. } = insns[check] else {
        unreachable!("found as a jump")
    };
    let used = insns[check + 1..]
        .iter()
        .find(|insn| {
            matches!(insn, Insn::Alu { op: AluOp::Add, src: Source::Reg(src), .. } if *src == checked)
                || matches!(insn, Insn::Load { size: Size::DW, dst, .. } if *dst == checked)
        })
        .unwrap_or_else(|| panic!("the distance isn't used\n{listing}"));
    assert!(matches!(used, Insn::Alu { .. }), "{listing}");
}
