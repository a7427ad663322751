//! Misuse: each is an error that names the Rust line, the rule, and what to write instead.

use bpf_asm::builder::{
    BuildError, BuildErrorKind, Constant, Function, Hash, Ptr, Tc, Xdp, classifier, xdp, xdp_for,
};
use bpf_asm::target::{Answer, Feature, Target};

/// The error has this text, and names the line on which there is this code.
fn refused(write: impl FnOnce(Function<'_, Xdp>), text: &str, code: &str) {
    let error = xdp("refused", |f| {
        write(f);
        f.ret(0u32);
    });
    expect(error.map(|_| ()), text, code);
}

#[track_caller]
fn expect(result: Result<(), BuildError>, text: &str, code: &str) {
    let error = result.expect_err(text);
    let shown = error.to_string();
    assert!(shown.contains(text), "{shown}");
    assert_eq!(error.line.file, file!(), "{shown}");
    let mut lines = include_str!("refused.rs").lines();
    let line = lines.nth(error.line.line as usize - 1).unwrap();
    assert!(line.contains(code), "{shown}: `{line}` is not `{code}`");
}

#[test]
fn a_case_that_never_runs_is_named() {
    refused(
        |f| {
            f.match_(f.random_u32())
                .case(1, || ())
                .case(1, || ())
                .otherwise(|| ())
        },
        "two cases for 1",
        ".case(1, || ())",
    );
}

#[test]
fn loops_without_a_provable_bound_are_named() {
    refused(
        |f| f.loop_up_to(0, |_, _| ()),
        "between 1 and 1048576",
        "loop_up_to(0",
    );
    refused(
        |f| f.unroll(5000, |_, _| ()),
        "between 1 and 4096",
        "unroll(5000",
    );
    let huge = |f: Function<'_, Xdp>| {
        f.loop_callback("huge", 9_000_000u32, f.stack::<u64>(), |g, _, _| {
            g.return_value(0u64)
        });
    };
    refused(huge, "between 1 and 8388608", r#"loop_callback("huge""#);
}

#[test]
fn a_callback_s_context_outside_the_stack_is_named() {
    const TABLE: Hash<u32, u64> = Hash::new("table", 1);
    let write = |f: Function<'_, Xdp>| {
        let value: Ptr<'_, u64> = TABLE.lookup(f, 1u32, || f.ret(0u32));
        f.loop_callback("callback", 3u32, value, |g, _, _| g.return_value(0u64));
    };
    refused(
        write,
        "has to lie on the stack",
        r#"loop_callback("callback""#,
    );
}

#[test]
fn formats_that_the_kernel_would_refuse_are_named() {
    refused(
        |f| f.printk("%s", &[f.value(1)]),
        "at most three",
        r#"printk("%s""#,
    );
    refused(
        |f| f.printk("%d", &[]),
        "asks for 1 values and 0 are given",
        r#"printk("%d""#,
    );
    refused(
        |f| f.printk("%d %d %d %d", &[f.value(1); 4]),
        "at most three",
        r#"printk("%d %d"#,
    );
}

#[test]
fn helpers_of_another_hook_called_by_number_are_named() {
    // bpf_skb_vlan_pop.
    refused(
        |f| {
            f.call_helper(19, &[]);
        },
        "can't call the helper skb_vlan_pop (number 19)",
        "call_helper(19",
    );
    refused(
        |f| {
            f.call_helper(5, &[f.value(0); 6]);
        },
        "at most five",
        "call_helper(5",
    );
}

#[test]
fn division_by_zero_and_a_shift_too_far_are_named() {
    refused(
        |f| {
            let _ = f.random_u32().cast::<i32>() / 0i32;
        },
        "division by the constant 0",
        "/ 0i32",
    );
    refused(
        |f| {
            let _ = f.random_u32() << 32u32;
        },
        "shift by less",
        "<< 32u32",
    );
}

#[test]
fn a_word_of_the_scratch_area_that_is_not_there_is_named() {
    let result = classifier("words", |f: Function<'_, Tc>| {
        f.set_cb(5, 1u32);
        f.ret(0u32);
    });
    expect(result.map(|_| ()), "index 5 is outside of 5", "set_cb(5");
}

#[test]
fn what_a_target_lacks_is_named_before_the_kernel_is_asked() {
    let old = Target::common()
        .without(Feature::Atomics)
        .without(Feature::AtomicAdd);
    let result = xdp_for(&old, "atomic", |f| {
        let word = f.stack::<u64>();
        word.write(0u64);
        word.fetch_add(bpf_asm::builder::Field::<u64, u64>::whole(), 1u64);
        f.ret(0u32);
    });
    let feature = Feature::Atomics;
    let kind = result.as_ref().map(|_| ()).unwrap_err().kind.clone();
    assert_eq!(kind, BuildErrorKind::Target { feature });
    expect(
        result.map(|_| ()),
        "the target has no atomics",
        "word.fetch_add(",
    );

    let without = Target::probe(|program| {
        let is_loop = format!("{:?}", program.main.insns).contains("Call { helper: 181 }");
        Ok::<_, ()>(if is_loop {
            Answer::Refused("unknown func bpf_loop#181".to_owned())
        } else {
            Answer::Loaded
        })
    });
    let result = xdp_for(&without.unwrap(), "callback", |f| {
        let state = f.stack::<u64>();
        state.write(0u64);
        f.loop_callback("body", 3u32, state, |g, _, _| g.return_value(0u64));
        f.ret(0u32);
    });
    let message = "the target has no helper loop (number 181, since Linux 5.17)";
    expect(result.map(|_| ()), message, r#"loop_callback("body""#);
}

#[test]
fn a_subprogram_that_returns_another_type_is_named() {
    let write = |f: Function<'_, Xdp>| {
        f.subprogram::<(u8,), u16>("narrow", |g, (byte,)| g.return_value(byte));
    };
    let code = r#"f.subprogram::<(u8,), u16>("narrow""#;
    refused(write, "declared to return u16, and u8 is returned", code);
}

#[test]
fn a_subprogram_without_the_context_has_no_packet() {
    let write = |f: Function<'_, Xdp>| {
        f.subprogram::<(), u64>("blind", |g, ()| {
            g.packet();
            g.return_value(0u64);
        });
    };
    refused(write, "a subprogram has no context", "g.packet();");
}

#[test]
fn a_subprogram_of_another_program_is_named() {
    let mut kept = None;
    xdp("first", |f| {
        kept = Some(f.subprogram::<(), u64>("nine", |g, ()| g.return_value(9u64)));
        f.ret(0u32);
    })
    .unwrap();
    let write = |f: Function<'_, Xdp>| {
        f.call(kept.unwrap(), ());
    };
    refused(write, "belongs to another program", "f.call(kept.unwrap()");
}

#[test]
fn a_map_with_a_section_s_name_is_named() {
    const TABLE: Hash<u32, u64> = Hash::new(".rodata", 1);
    const LIMIT: Constant<u64> = Constant::new("limit", 9);
    let write = |f: Function<'_, Xdp>| {
        TABLE.lookup(f, 1u32, || f.ret(0u32));
        LIMIT.read(f);
    };
    refused(write, "`.rodata` is not a name", "TABLE.lookup(");
}
