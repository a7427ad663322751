//! Every broken rule, each by a program that breaks it.

use bpf_asm::asm::Assembler;
use bpf_asm::insn::{Imm64, Insn, Reg};
use bpf_asm::interpreter::{Fault, FaultKind, LoadError, Machine, Value, XdpInput};
use bpf_asm::program::{MapDef, MapType, ProgramKind, Relocation, Target};

use crate::support::{array, fault, function, map, program, ring, run, tc, xdp};

const R0: Reg = Reg::R0;
const R1: Reg = Reg::R1;
const R2: Reg = Reg::R2;
const R3: Reg = Reg::R3;
const R6: Reg = Reg::R6;
const R10: Reg = Reg::R10;
const LOOKUP: u32 = 1;
const RESERVE: u32 = 131;
const DISCARD: u32 = 133;

/// r0 = the array's value or null.
fn look_up(a: &mut Assembler) -> &mut Assembler {
    a.st_w(R10, -4, 0).load_map(R1, "array");
    a.mov64(R2, R10).add64_imm(R2, -4).call(LOOKUP)
}

/// The same, checked.
fn value(a: &mut Assembler) -> &mut Assembler {
    let found = a.label();
    look_up(a).jne64_imm(R0, 0, found).exit();
    a.bind(found)
}

/// r0 = a record of 16 bytes, checked.
fn record(a: &mut Assembler) -> &mut Assembler {
    let found = a.label();
    a.load_map(R1, "ring").mov64_imm(R2, 16).mov64_imm(R3, 0);
    a.call(RESERVE).jne64_imm(R0, 0, found).exit();
    a.bind(found)
}

/// r2 = data, r3 = data_end; r6 = the context.
fn packet(a: &mut Assembler) -> &mut Assembler {
    a.mov64(R6, R1).ldx_w(R2, R6, 0).ldx_w(R3, R6, 4)
}

#[test]
fn a_register_that_nothing_was_written_to() {
    let kind = fault(&[], |a| {
        a.mov64(R0, Reg::R7).exit();
    });
    assert_eq!(kind, FaultKind::UninitialisedRegister(Reg::R7));
    // Calls clobber r1 to r5, and the main function must return something.
    let kind = fault(&[], |a| {
        a.mov64_imm(R3, 1).call(5).mov64(R0, R3).exit();
    });
    assert_eq!(kind, FaultKind::UninitialisedRegister(R3));
    let kind = fault(&[], |a| {
        a.exit();
    });
    assert_eq!(kind, FaultKind::UninitialisedRegister(R0));
}

#[test]
fn stack_bytes_that_nothing_was_written_to() {
    let kind = fault(&[], |a| {
        a.st_w(R10, -8, 1).ldx_dw(R0, R10, -8).exit();
    });
    assert!(matches!(kind, FaultKind::UninitialisedStack(at) if at.offset == -8));
    // A helper's argument too.
    let kind = fault(&[array()], |a| {
        a.load_map(R1, "array").mov64(R2, R10).add64_imm(R2, -4);
        a.call(LOOKUP).mov64_imm(R0, 0).exit();
    });
    assert!(matches!(kind, FaultKind::UninitialisedStack(_)));
}

#[test]
fn memory_through_numbers_and_null() {
    let kind = fault(&[], |a| {
        a.mov64_imm(R2, 4096).ldx_w(R0, R2, 0).exit();
    });
    assert_eq!(
        kind,
        FaultKind::NotAPointer {
            value: Value::Scalar(4096)
        }
    );
    let kind = fault(&[], |a| {
        a.mov64_imm(R2, 0).ldx_w(R0, R2, 0).exit();
    });
    assert_eq!(kind, FaultKind::NullPointer);
}

#[test]
fn a_look_up_that_was_not_compared_with_null() {
    let kind = fault(&[array()], |a| {
        look_up(a).ldx_dw(R0, R0, 0).exit();
    });
    assert!(matches!(kind, FaultKind::UncheckedLookup(_)));
    // Nor may it be moved.
    let kind = fault(&[array()], |a| {
        look_up(a).add64_imm(R0, 8).mov64_imm(R0, 0).exit();
    });
    assert!(matches!(kind, FaultKind::UncheckedLookup(_)));
    // Checking one copy checks all.
    let r0 = xdp(&[array()], |a| {
        let found = a.label();
        look_up(a).mov64(R6, R0).jne64_imm(R0, 0, found).exit();
        a.bind(found).ldx_dw(R0, R6, 8).exit();
    });
    assert_eq!(r0, Ok(0));
}

#[test]
fn accesses_outside_of_their_region() {
    let out_of_bounds = |kind| matches!(kind, FaultKind::OutOfBounds { .. });
    // A packet's last word and one byte more; before its start.
    for (offset, fits) in [(60, true), (61, false), (-1, false)] {
        let result = xdp(&[], |a| {
            packet(a).ldx_w(R0, R2, offset).mov64_imm(R0, 0).exit();
        });
        assert_eq!(result.is_ok(), fits, "{offset}");
        assert!(fits || out_of_bounds(result.unwrap_err().kind));
    }
    for (offset, fits) in [(8, true), (9, false), (16, false), (-1, false)] {
        let result = xdp(&[array()], |a| {
            value(a).ldx_dw(R0, R0, offset).exit();
        });
        assert_eq!(result.is_ok(), fits, "{offset}");
    }
    for offset in [0, -520] {
        assert!(out_of_bounds(fault(&[], |a| {
            a.st_dw(R10, offset, 0).mov64_imm(R0, 0).exit();
        })));
    }
    assert!(out_of_bounds(fault(&[ring()], |a| {
        record(a).st_dw(R0, 16, 0).exit();
    })));
}

#[test]
fn packet_pointers_from_before_the_packet_moved() {
    let kind = fault(&[], |a| {
        packet(a).mov64(Reg::R7, R2);
        a.mov64(R1, R6).mov64_imm(R2, -8).call(44);
        a.ldx_b(R0, Reg::R7, 0).exit();
    });
    assert!(matches!(kind, FaultKind::StalePacketPointer(_)));
    // Loaded again, they are good.
    let r0 = xdp(&[], |a| {
        packet(a).mov64(R1, R6).mov64_imm(R2, -8).call(44);
        a.ldx_w(R2, R6, 0).ldx_b(R0, R2, 8).exit();
    });
    assert_eq!(r0, Ok(7));
}

#[test]
fn pointers_into_the_stack_of_a_function_that_returned() {
    let mut program = program(ProgramKind::Xdp, &[], |a| {
        a.mov64(R1, R10).add64_imm(R1, -8).call_local("callee");
        a.ldx_dw(R2, R10, -8).ldx_dw(R0, R2, 0).exit();
    });
    program.subprograms = vec![function("callee", |a| {
        a.st_dw(R10, -8, 5).mov64(R2, R10).add64_imm(R2, -8);
        a.stx_dw(R1, 0, R2).mov64_imm(R0, 0).exit();
    })];
    let kind = run(&program, XdpInput::new(vec![0; 64])).unwrap_err().kind;
    assert!(matches!(kind, FaultKind::DanglingStackPointer(_)));
}

#[test]
fn records_after_they_were_given_away_and_records_that_never_are() {
    let kind = fault(&[ring()], |a| {
        record(a).mov64(R6, R0).mov64(R1, R0).mov64_imm(R2, 0);
        a.call(DISCARD).st_dw(R6, 0, 1).mov64_imm(R0, 0).exit();
    });
    assert!(matches!(kind, FaultKind::ClosedRecord(_)));
    let kind = fault(&[ring()], |a| {
        record(a).mov64_imm(R0, 0).exit();
    });
    assert!(matches!(kind, FaultKind::UnreleasedRecord(_)));
}

#[test]
fn what_can_be_neither_read_nor_written() {
    let forbidden = |kind| matches!(kind, FaultKind::Forbidden { .. });
    assert!(forbidden(fault(&[], |a| {
        packet(a).ldx_b(R0, R3, 0).exit();
    })));
    assert!(forbidden(fault(&[array()], |a| {
        a.load_map(R1, "array").ldx_dw(R0, R1, 0).exit();
    })));
    // Atomics on a packet.
    assert!(forbidden(fault(&[], |a| {
        packet(a).mov64_imm(R0, 1).atomic_add64(R2, 0, R0).exit();
    })));
    let mut read_only = array();
    read_only.flags = 1 << 7;
    assert!(forbidden(fault(&[read_only], |a| {
        value(a).st_dw(R0, 0, 1).mov64_imm(R0, 0).exit();
    })));
}

#[test]
fn context_fields_that_are_not_there() {
    for (offset, store) in [(24, false), (2, false), (12, true)] {
        let kind = fault(&[], |a| {
            if store {
                a.st_w(R1, offset, 0);
            } else {
                a.ldx_w(R2, R1, offset);
            }
            a.mov64_imm(R0, 0).exit();
        });
        assert!(matches!(kind, FaultKind::ContextField { .. }), "{offset}");
    }
    // A socket buffer's mark can be written, its length can't.
    assert_eq!(
        tc(|a| {
            a.st_w(R1, 8, 5).ldx_w(R0, R1, 8).exit();
        }),
        Ok(5)
    );
    let fault = tc(|a| {
        a.st_w(R1, 0, 5).mov64_imm(R0, 0).exit();
    });
    assert!(matches!(
        fault.unwrap_err().kind,
        FaultKind::ContextField { .. }
    ));
}

#[test]
fn accesses_that_are_not_aligned() {
    let misaligned = |kind| matches!(kind, FaultKind::Misaligned { .. });
    assert!(misaligned(fault(&[], |a| {
        a.st_dw(R10, -12, 0).mov64_imm(R0, 0).exit();
    })));
    assert!(misaligned(fault(&[array()], |a| {
        value(a).mov64_imm(R2, 1).atomic_add64(R0, 4, R2);
        a.mov64_imm(R0, 0).exit();
    })));
}

#[test]
fn arithmetic_and_comparisons_that_show_addresses() {
    let programs: [fn(&mut Assembler); 5] = [
        |a| {
            packet(a).and64_imm(R2, 7);
        },
        |a| {
            packet(a).mov32(R0, R2);
        },
        |a| {
            packet(a).neg64(R2);
        },
        |a| {
            packet(a).sub64(R2, R10);
        },
        |a| {
            a.add64_imm(R1, 4);
        },
    ];
    for write in programs {
        let kind = fault(&[], |a| {
            write(a);
            a.mov64_imm(R0, 0).exit();
        });
        assert!(matches!(kind, FaultKind::PointerArithmetic(_)), "{kind}");
    }
    for imm in [false, true] {
        let kind = fault(&[], |a| {
            let out = a.label();
            packet(a);
            if imm {
                a.jgt64_imm(R2, 5, out);
            } else {
                a.jgt64(R2, R10, out);
            }
            a.bind(out).mov64_imm(R0, 0).exit();
        });
        assert!(matches!(kind, FaultKind::PointerComparison(..)));
    }
}

#[test]
fn pointers_that_leak() {
    let kind = fault(&[array()], |a| {
        value(a).stx_dw(R0, 0, R10).mov64_imm(R0, 0).exit();
    });
    assert!(matches!(kind, FaultKind::PointerLeak { .. }));
    let kind = fault(&[], |a| {
        packet(a).stx_dw(R2, 0, R6).mov64_imm(R0, 0).exit();
    });
    assert!(matches!(kind, FaultKind::PointerLeak { .. }));
    let kind = fault(&[], |a| {
        a.mov64(R0, R10).exit();
    });
    assert!(matches!(kind, FaultKind::PointerReturned(_)));
}

#[test]
fn parts_of_pointers_on_the_stack() {
    let kind = fault(&[], |a| {
        a.stx_dw(R10, -8, R1).ldx_w(R0, R10, -8).exit();
    });
    assert!(matches!(kind, FaultKind::PartOfPointer(_)));
    // Written over in part, there is no value left.
    let kind = fault(&[], |a| {
        a.stx_dw(R10, -8, R1)
            .st_w(R10, -8, 0)
            .ldx_dw(R0, R10, -8)
            .exit();
    });
    assert!(matches!(kind, FaultKind::UninitialisedStack(_)));
}

#[test]
fn arguments_of_helpers() {
    let argument = |kind, n| matches!(kind, FaultKind::Argument { argument, .. } if argument == n);
    assert!(argument(
        fault(&[], |a| {
            a.mov64_imm(R1, 3).mov64_imm(R2, 0).call(LOOKUP).exit();
        }),
        1
    ));
    assert!(argument(
        fault(&[], |a| {
            a.mov64(R1, R10).mov64_imm(R2, 0).call(44).exit();
        }),
        1
    ));
    assert!(argument(
        fault(&[], |a| {
            a.mov64(R2, R10).call(44).exit();
        }),
        2
    ));
}

#[test]
fn helpers_that_are_not_there() {
    for helper in [9999, 13, 0] {
        let kind = fault(&[], |a| {
            a.mov64_imm(R2, 0).mov64_imm(R3, 0).call(helper).exit();
        });
        assert!(matches!(kind, FaultKind::UnknownHelper { helper: found, .. } if found == helper));
    }
}

#[test]
fn instructions_that_only_a_kernel_has() {
    let machine = Machine::new();
    let insn = Insn::CallKfunc {
        btf_id: 5,
        btf_fd_index: 0,
    };
    let error = machine.load_insns(&[insn, Insn::Exit]).unwrap_err();
    assert!(matches!(error, LoadError::Unsupported { slot: 0, .. }));
    // Legacy packet loads are TC's.
    let kind = fault(&[], |a| {
        a.mov64(R6, R1).ld_abs_b(0).exit();
    });
    assert_eq!(kind, FaultKind::Unsupported);
}

#[test]
fn maps_that_do_not_go_with_the_helper() {
    let queue = map("queue", MapType::Queue, (0, 8), 4);
    let kind = fault(&[queue], |a| {
        a.st_w(R10, -4, 0).load_map(R1, "queue");
        a.mov64(R2, R10)
            .add64_imm(R2, -4)
            .call(LOOKUP)
            .mov64_imm(R0, 0)
            .exit();
    });
    assert!(matches!(kind, FaultKind::WrongMap { .. }));
}

#[test]
fn programs_that_do_not_end() {
    let machine = Machine::new();
    machine.set_budget(1000);
    let id = machine.load_insns(&[Insn::Goto { offset: -1 }, Insn::Exit]);
    let mut run = machine.start(id.unwrap(), bpf_asm::interpreter::Input::Memory(Vec::new()));
    assert_eq!(run.run().unwrap_err().kind, FaultKind::Budget(1000));
    assert_eq!(run.executed(), 1000);
    // It stays ended.
    assert_eq!(run.step().unwrap_err().kind, FaultKind::Budget(1000));
}

#[test]
fn calls_that_are_too_deep() {
    let mut deep = program(ProgramKind::Xdp, &[], |a| {
        a.call_local("again").exit();
    });
    deep.subprograms = vec![function("again", |a| {
        a.call_local("again").exit();
    })];
    let kind = run(&deep, XdpInput::new(vec![0; 64])).unwrap_err().kind;
    assert_eq!(kind, FaultKind::CallDepth(8));
}

#[test]
fn frames_that_together_are_too_large() {
    let mut large = program(ProgramKind::Xdp, &[], |a| {
        a.st_dw(R10, -264, 0).call_local("callee").exit();
    });
    large.subprograms = vec![function("callee", |a| {
        a.st_dw(R10, -264, 0).mov64_imm(R0, 0).exit();
    })];
    let kind = run(&large, XdpInput::new(vec![0; 64])).unwrap_err().kind;
    assert_eq!(kind, FaultKind::StackDepth { bytes: 576 });
}

#[test]
fn execution_past_the_last_instruction() {
    let kind = fault(&[], |a| {
        a.mov64_imm(R0, 0);
    });
    assert_eq!(kind, FaultKind::OutOfProgram);
}

#[test]
fn spin_locks_held_where_they_must_not_be() {
    let lock = |a: &mut Assembler| {
        value(a).mov64(R6, R0).mov64(R1, R6).call(93);
    };
    let held = |kind| matches!(kind, FaultKind::LockHeld(_));
    assert!(held(fault(&[array()], |a| {
        lock(a);
        a.mov64_imm(R0, 0).exit();
    })));
    assert!(held(fault(&[array()], |a| {
        lock(a);
        a.call(5).exit();
    })));
    let kind = fault(&[array()], |a| {
        value(a).mov64(R1, R0).call(94).mov64_imm(R0, 0).exit();
    });
    assert_eq!(kind, FaultKind::LockNotHeld);
    let r0 = xdp(&[array()], |a| {
        lock(a);
        a.st_dw(R6, 8, 5)
            .mov64(R1, R6)
            .call(94)
            .mov64_imm(R0, 2)
            .exit();
    });
    assert_eq!(r0, Ok(2));
}

/// Calls `callback` three times by bpf_loop, with r1 of the main function as the callbacks' context.
fn iterated(maps: &[MapDef], callback: impl FnOnce(&mut Assembler)) -> Result<u64, Fault> {
    let mut program = program(ProgramKind::Xdp, maps, |a| {
        a.mov64(R3, R1).mov64_imm(R1, 3);
        let value = Imm64::Function { offset: 0 };
        a.emit(Insn::LoadImm64 { dst: R2, value });
        a.mov64_imm(Reg::R4, 0).call(181).exit();
    });
    let target = Target::Subprogram("callback".to_owned());
    program.main.relocations.push(Relocation { at: 2, target });
    program.subprograms = vec![function("callback", callback)];
    run(&program, XdpInput::new(vec![7; 64]))
}

#[test]
fn callbacks_that_return_something_else_or_leave_for_another_program() {
    let returns = |result| {
        iterated(&[], |a| {
            a.mov64_imm(R0, result).exit();
        })
    };
    let kind = returns(2).unwrap_err().kind;
    assert_eq!(kind, FaultKind::CallbackResult(Value::Scalar(2)));
    assert_eq!(returns(0), Ok(3));
    assert_eq!(returns(1), Ok(1));
    let table = map("table", MapType::ProgArray, (4, 4), 1);
    let leaves = iterated(&[table], |a| {
        a.mov64(R1, R2).load_map(R2, "table").mov64_imm(R3, 0);
        a.call(12).mov64_imm(R0, 0).exit();
    });
    assert_eq!(leaves.unwrap_err().kind, FaultKind::TailCallFromCallback);
}

#[test]
fn a_fault_names_the_instruction_and_its_rust_line() {
    let line = line!() + 2;
    let fault = xdp(&[], |a| {
        a.mov64_imm(R2, 1).ldx_w(R0, R2, 4).exit();
    })
    .unwrap_err();
    assert_eq!((fault.at.slot, fault.at.program.as_str()), (1, "main"));
    assert_eq!(
        fault.at.line.map(|at| (at.file, at.line)),
        Some((file!(), line))
    );
    let text = fault.to_string();
    assert!(
        text.ends_with("instruction 1 of `main`, `r0 = *(u32 *)(r2 +4)`: 1 is no pointer"),
        "{text}"
    );
}

#[test]
fn programs_that_are_none_are_refused_when_they_are_loaded() {
    let machine = Machine::new();
    assert_eq!(machine.load_bytes(&[0; 7]), Err(LoadError::Length(7)));
    assert_eq!(machine.load_bytes(&[]), Err(LoadError::Size(0)));
    assert!(matches!(
        machine.load_bytes(&[0xff; 8]),
        Err(LoadError::Decode { slot: 0, .. })
    ));
    assert_eq!(
        machine.load_insns(&[Insn::Goto { offset: 7 }, Insn::Exit]),
        Err(LoadError::Target { slot: 0 })
    );
    let write = Insn::Neg {
        width: bpf_asm::insn::Width::W64,
        dst: R10,
    };
    assert_eq!(
        machine.load_insns(&[write, Insn::Exit]),
        Err(LoadError::FramePointer { slot: 0 })
    );
}
