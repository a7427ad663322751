//! Kernel, rights and settings, as the kernel tells them in /proc and /sys.

use std::fs;
use std::path::Path;

use super::finding::Finding;

const RIGHTS: &str = "run as root, or give the binary the rights: \
    setcap cap_bpf,cap_net_admin,cap_perfmon+ep electrode";

pub(super) fn examine() -> Vec<Finding> {
    let read = |path: &str| {
        fs::read_to_string(path)
            .ok()
            .map(|text| text.trim().to_owned())
    };
    vec![
        kernel(read("/proc/sys/kernel/osrelease").as_deref()),
        capabilities(read("/proc/self/status").as_deref()),
        jit(read("/proc/sys/net/core/bpf_jit_enable").as_deref()),
        btf(Path::new("/sys/kernel/btf/vmlinux").exists()),
        unprivileged(read("/proc/sys/kernel/unprivileged_bpf_disabled").as_deref()),
    ]
}

/// Programs exchange 64-bit words with user space by atomics, which BPF has since 5.12; 5.15 is the oldest kernel aimed at.
fn kernel(release: Option<&str>) -> Finding {
    let Some(release) = release else {
        return Finding::note("kernel", "/proc/sys/kernel/osrelease can't be read");
    };
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    let mut next = || numbers.next().and_then(Result::ok);
    let detail = format!("Linux {release}");
    match (next(), next()) {
        (Some(major), Some(minor)) if (major, minor) < (5, 12) => Finding::not_ok("kernel", detail)
            .remedy("its BPF has no 64-bit atomics; use Linux 5.15 or later"),
        (Some(major), Some(minor)) if (major, minor) < (5, 15) => {
            Finding::note("kernel", detail).remedy("Linux 5.15 or later is aimed at")
        }
        (Some(_), Some(_)) => Finding::ok("kernel", detail),
        _ => Finding::note("kernel", format!("{detail}: no version that can be read")),
    }
}

fn capabilities(status: Option<&str>) -> Finding {
    // Numbers of linux/capability.h.
    const SYS_ADMIN: u32 = 21;
    const NEEDED: [(u32, &str, bool); 3] = [
        (39, "CAP_BPF", true),
        (12, "CAP_NET_ADMIN", false),
        (38, "CAP_PERFMON", true),
    ];
    let effective = status.and_then(|status| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(line.trim(), 16).ok()
    });
    let Some(effective) = effective else {
        return Finding::note("capabilities", "/proc/self/status has no CapEff line");
    };
    let has = |number: u32| effective & (1 << number) != 0;
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(number, _, implied)| !(has(*number) || (*implied && has(SYS_ADMIN))))
        .map(|(_, name, _)| *name)
        .collect();
    if missing.is_empty() {
        Finding::ok("capabilities", "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON")
    } else {
        Finding::not_ok("capabilities", format!("no {}", missing.join(", "))).remedy(RIGHTS)
    }
}

fn jit(setting: Option<&str>) -> Finding {
    match setting {
        Some("0") => Finding::note("BPF JIT", "off, so programs are interpreted")
            .remedy("sysctl -w net.core.bpf_jit_enable=1"),
        Some(_) => Finding::ok("BPF JIT", "on"),
        None => Finding::note(
            "BPF JIT",
            "not told here (only the first network namespace sees net.core.bpf_jit_enable)",
        ),
    }
}

/// The programs read no kernel structure by BTF; it only makes the verifier's messages better.
fn btf(present: bool) -> Finding {
    if present {
        Finding::ok("kernel BTF", "/sys/kernel/btf/vmlinux")
    } else {
        Finding::note("kernel BTF", "absent; the programs don't need it")
    }
}

fn unprivileged(setting: Option<&str>) -> Finding {
    let subject = "unprivileged BPF";
    match setting {
        Some("0") => Finding::note(subject, "allowed, which the fast path doesn't need")
            .remedy("sysctl -w kernel.unprivileged_bpf_disabled=1 forbids it"),
        Some(_) => Finding::ok(subject, "forbidden"),
        None => Finding::note(subject, "not told here"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn kernels_are_told_apart_by_their_atomics() {
        let verdict = |release| kernel(Some(release)).verdict;
        assert_eq!(verdict("4.19.0-27-amd64"), Verdict::NotOk);
        assert_eq!(verdict("5.11.22"), Verdict::NotOk);
        assert_eq!(verdict("5.12.0"), Verdict::Note);
        assert_eq!(verdict("5.15.0-164-generic"), Verdict::Ok);
        assert_eq!(verdict("6.1.0"), Verdict::Ok);
        assert_eq!(verdict("7.0-rc1"), Verdict::Ok);
        assert_eq!(verdict("unknown"), Verdict::Note);
    }

    #[test]
    fn sys_admin_stands_for_bpf_and_perfmon_but_not_for_net_admin() {
        let of = |bits: &[u32]| {
            let mask = bits.iter().fold(0u64, |mask, bit| mask | 1 << bit);
            capabilities(Some(&format!("Name:\tx\nCapEff:\t{mask:016x}\n")))
        };
        assert_eq!(of(&[12, 38, 39]).verdict, Verdict::Ok);
        assert_eq!(of(&[12, 21]).verdict, Verdict::Ok);
        assert_eq!(of(&[21]).detail, "no CAP_NET_ADMIN");
        assert_eq!(of(&[]).detail, "no CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON");
        assert_eq!(of(&[]).verdict, Verdict::NotOk);
    }

    #[test]
    fn a_jit_that_is_off_only_costs_time() {
        assert_eq!(jit(Some("0")).verdict, Verdict::Note);
        assert_eq!(jit(Some("1")).verdict, Verdict::Ok);
        assert_eq!(jit(None).verdict, Verdict::Note);
    }
}
