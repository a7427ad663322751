//! Helpers as methods, and the table of which hook has which.

use bpf_asm::builder::{XDP_ABORTED, XDP_PASS, classifier, xdp};
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
        let larger = f.subprogram("larger", |g, [a, b]| {
            g.if_(a.gt(b), || g.return_value(a));
            g.return_value(b);
        });
        let twice = f.subprogram("twice", |g, [a]| {
            let more = g.call(larger, [a, g.value(3u64)]);
            g.return_value(more * 2u64);
        });
        let sum = f.call(twice, [f.value(1u64)]) + f.call(twice, [f.len().cast::<u64>()]);
        f.ret(sum.cast::<u32>());
    });
    assert_eq!(Running::new(program.unwrap()).verdict(), 6 + 128);
}
