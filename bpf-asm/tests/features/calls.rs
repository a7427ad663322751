//! Helpers as methods, and the table of which hook has which.

use bpf_asm::builder::{
    Array, Be, Context, Memory, XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX, classifier, xdp,
};
use bpf_asm::field;
use bpf_asm::harness::Harness;
use bpf_asm::helper::{HELPERS, Hook};

use crate::kernel::{Running, is_root, probed};

#[test]
fn the_running_kernel_agrees_with_the_table_of_helpers() {
    if !is_root() {
        return;
    }
    let target = probed();
    for helper in HELPERS {
        for hook in Hook::ALL {
            // A kernel may be too old for one; none has one for a hook that the table leaves out.
            let has = target.has_helper(hook, helper.number);
            let known =
                has == Some(helper.is_for(hook)) || (has == Some(false) && is_older(helper.since));
            assert!(known, "{hook:?}: {helper:?}, but the kernel says {has:?}");
        }
    }
}

fn is_older(than: (u8, u8)) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.parse::<u8>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < than
}

#[test]
fn clocks_go_forward_and_the_cpu_has_a_number() {
    if !is_root() {
        return;
    }
    let program = xdp("clocks", |f| {
        let first = f.ktime_ns();
        let boot = f.ktime_boot_ns();
        let ticks = f.jiffies();
        let cpu = f.cpu();
        let fine = f.ktime_ns().ge(first) & boot.ge(first) & ticks.gt(0u64) & cpu.lt(4096u32);
        f.if_(fine, || f.ret(XDP_PASS));
        f.ret(XDP_ABORTED);
    });
    assert_eq!(Running::new(program.unwrap()).verdict(), XDP_PASS);
}

#[test]
fn a_checksum_changes_by_the_difference_of_what_it_sums() {
    if !is_root() {
        return;
    }
    let program = xdp("checksum", |f| {
        let (from, to) = (f.stack::<[u32; 2]>(), f.stack::<[u32; 1]>());
        from.element(0).write(0x0001_0002u32);
        from.element(1).write(0u32);
        to.element(0).write(0x0003_0004u32);
        let sum = f.csum_diff(Some(from), Some(to), 5u32).cast::<u64>();
        // Folded: (3 + 4) - (1 + 2) + 5 in ones' complement.
        let sum = (sum & 0xffffu64) + ((sum >> 16u64) & 0xffffu64);
        let sum = (sum & 0xffffu64) + (sum >> 16u64);
        f.ret(sum.cast::<u32>());
    });
    assert_eq!(Running::new(program.unwrap()).verdict(), 9);
}

#[test]
fn subprograms_take_arguments_and_return_early() {
    if !is_root() {
        return;
    }
    let program = classifier("calls", |f| {
        let larger = f.subprogram::<[u64; 2], u64>("larger", |g, [a, b]| {
            g.if_(a.gt(b), || g.return_value(a));
            g.return_value(b);
        });
        let twice = f.subprogram::<(u64,), u64>("twice", |g, (a,)| {
            let more = g.call(larger, [a, g.value(3u64)]);
            g.return_value(more * 2u64);
        });
        let sum = f.call(twice, (f.value(1u64),)) + f.call(twice, (f.len().cast::<u64>(),));
        f.ret(sum.cast::<u32>());
    });
    assert_eq!(Running::new(program.unwrap()).verdict(), 6 + 128);
}

/// The same in the kernel, where that is allowed, and on the interpreter.
fn answer(program: bpf_asm::program::Program, packet: &[u8]) -> (u32, Vec<u8>) {
    let harness = Harness::new([program.clone()]).unwrap();
    let name = program.main.name.clone();
    let ours = harness.xdp(&name, packet.to_vec()).unwrap();
    let ours = (ours.verdict, ours.packet);
    if is_root() {
        assert_eq!(Running::new(program).run(packet), ours);
    }
    ours
}

#[test]
fn arguments_and_results_keep_their_types() {
    let program = xdp("typed", |f| {
        // Signed numbers stay negative, bytes stay bytes, and byte orders are the caller's.
        let sum = f.subprogram::<(i8, i16, i32, i64), i16>("sum", |g, (a, b, c, d)| {
            let low = a.cast::<i64>() + b.cast::<i64>();
            g.return_value((low + c.cast::<i64>() + d).cast::<i16>());
        });
        let port = f.subprogram::<(Be<u16>, u8), Be<u16>>("port", |g, (port, more)| {
            let next = port.to_native() + more.cast::<u16>();
            g.return_value(next.to_be());
        });
        let none = f.subprogram::<(), u32>("none", |g, ()| g.return_value(9u32));
        let arguments = (
            f.value(-3i8),
            f.value(-300),
            f.value(-70_000),
            f.value(70_001),
        );
        let sum = f.call(sum, arguments);
        let port = f.call(port, (f.value(Be::new(0xffffu16)), f.value(200u8)));
        let fine =
            sum.eq(-302i16) & sum.lt(0i16) & port.eq(Be::new(199u16)) & f.call(none, ()).eq(9u32);
        f.if_(fine, || f.ret(XDP_TX));
        f.ret(XDP_DROP);
    });
    assert_eq!(answer(program.unwrap(), &[0; 64]).0, XDP_TX);
}

#[test]
fn pointers_to_stack_and_map_and_the_context_are_arguments() {
    #[repr(C)]
    struct Sums {
        calls: u64,
        bytes: u64,
    }
    const SUMS: Array<Sums> = Array::new("sums", 1);
    let program = xdp("pointers", |f| {
        let add = f.subprogram::<(Memory<Sums>, u32), u64>("add", |g, (sums, bytes)| {
            let calls = sums.load(field!(Sums, calls)) + 1u64;
            let bytes = sums.load(field!(Sums, bytes)) + bytes.cast::<u64>();
            sums.store(field!(Sums, calls), calls);
            sums.store(field!(Sums, bytes), bytes);
            g.return_value(bytes);
        });
        let first = f.subprogram::<(Context, u8), u8>("first", |g, (_, mark)| {
            let packet = g.packet();
            let view = packet.view::<[u8; 2]>(0, || g.return_value(0u8));
            let first = view.element(0).read();
            view.element(1).write(mark);
            g.return_value(first);
        });
        let here = f.stack::<Sums>();
        here.store(field!(Sums, calls), 0u64);
        here.store(field!(Sums, bytes), 0u64);
        let there = SUMS.lookup(f, 0u32, || f.ret(XDP_ABORTED));
        let byte = f.call(first, (Context, f.value(0x77u8))).cast::<u32>();
        f.call(add, (here, byte));
        f.call(add, (there, byte));
        let sum = f.call(add, (here, byte));
        let fine = sum.eq(10u64)
            & here.load(field!(Sums, calls)).eq(2u64)
            & there.load(field!(Sums, bytes)).eq(5u64);
        f.if_(fine, || f.ret(XDP_TX));
        f.ret(XDP_PASS);
    });
    let mut packet = [0; 64];
    packet[0] = 5;
    let (verdict, after) = answer(program.unwrap(), &packet);
    assert_eq!((verdict, after[1]), (XDP_TX, 0x77));
}
