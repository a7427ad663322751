//! Whether the programs can be attached to an interface, and what would keep them from seeing packets there.

use std::process::Command;

use electrode_dataplane::probe::{self, Attachable, Interface};

use super::finding::Finding;

/// The largest IP packet that the fast path handles: 1472 bytes of message behind IPv4 and UDP headers.
const FULL_MTU: u32 = 1500;

/// `dispatch` alone, with empty maps, passes everything on.
const VETH_REMEDY: &str = "one that passes everything will do: `electrode dump --program dispatch --format elf --output \
    pass.o`, and at the other end `ip link set dev NAME xdp obj pass.o sec xdp`";

pub(super) fn examine(name: &str) -> Vec<Finding> {
    let subject = format!("interface {name}");
    let interface = match probe::interface(name) {
        Ok(Some(interface)) => interface,
        Ok(None) => {
            return vec![
                Finding::not_ok(subject, "there is none of that name")
                    .remedy("`ip link` lists them"),
            ];
        }
        Err(error) => {
            return vec![Finding::not_ok(
                subject,
                format!("can't be asked about: {error}"),
            )];
        }
    };
    let mut findings = vec![state(name, &interface), mtu(name, &interface)];
    findings.push(xdp(name, &interface));
    if interface.kind.as_deref() == Some("veth") {
        let detail = "one end of a pair; what XDP_TX sends is lost unless the other end has an XDP program too";
        findings.push(Finding::note("veth", detail).remedy(VETH_REMEDY));
    }
    findings.push(tc(name));
    let settings = Command::new("ethtool").args(["-k", name]).output();
    let settings = settings.ok().filter(|output| output.status.success());
    let settings = settings.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    findings.push(vlan_offload(name, settings.as_deref()));
    findings.push(neighbours(&interface));
    findings
}

fn state(name: &str, interface: &Interface) -> Finding {
    let subject = format!("interface {name}");
    if !interface.ethernet {
        return Finding::not_ok(
            subject,
            "its frames aren't Ethernet's, the only ones that the programs read",
        );
    }
    if !interface.up {
        return Finding::not_ok(subject, "down").remedy(format!("ip link set dev {name} up"));
    }
    if !interface.running {
        return Finding::not_ok(subject, "up, but without a carrier")
            .remedy("look at cable and switch");
    }
    Finding::ok(subject, "up")
}

fn mtu(name: &str, interface: &Interface) -> Finding {
    let mtu = interface.mtu;
    let finding = Finding::note("MTU", format!("{mtu} bytes"));
    match mtu {
        0..FULL_MTU => finding.remedy(format!(
            "Prepares that don't fit take the way through user space; ip link set dev {name} mtu {FULL_MTU}, if the network allows it"
        )),
        // Drivers need a frame within a page for XDP without fragments.
        3500.. if name != "lo" => finding.remedy(
            "if native XDP is refused, that may be why: most drivers want it below about 3500",
        ),
        _ => Finding::ok("MTU", format!("{mtu} bytes")),
    }
}

fn xdp(name: &str, interface: &Interface) -> Finding {
    let native = probe::xdp(interface.index, true);
    let generic = match native {
        Attachable::No(_) => probe::xdp(interface.index, false),
        _ => Attachable::Yes,
    };
    xdp_finding(name, interface.xdp_program.as_deref(), &native, &generic)
}

fn xdp_finding(
    name: &str,
    program: Option<&str>,
    native: &Attachable,
    generic: &Attachable,
) -> Finding {
    match (native, generic) {
        (Attachable::Yes, _) => Finding::ok("XDP", "native"),
        (Attachable::Forbidden, _) | (_, Attachable::Forbidden) => {
            Finding::not_ok("XDP", "this process may not attach programs").remedy("run as root")
        }
        (Attachable::Busy, _) | (_, Attachable::Busy) if program == Some("dispatch") => {
            Finding::note(
                "XDP",
                "a replica has its program there; whether another could be attached wasn't tried",
            )
        }
        (Attachable::Busy, _) | (_, Attachable::Busy) => {
            let other = program.unwrap_or("?");
            Finding::not_ok(
                "XDP",
                format!("another program has the interface ({other})"),
            )
            .remedy(format!("ip link set dev {name} xdp off"))
        }
        (Attachable::No(reason), Attachable::Yes) => Finding::note(
            "XDP",
            format!("generic only, which is slower; native: {reason}"),
        ),
        (Attachable::No(native), Attachable::No(generic)) => Finding::not_ok(
            "XDP",
            format!("refused; native: {native}; generic: {generic}"),
        ),
    }
}

fn tc(name: &str) -> Finding {
    match probe::tcx(name) {
        Attachable::Yes => Finding::ok("TC egress", "TCX link"),
        Attachable::Forbidden => {
            Finding::not_ok("TC egress", "this process may not attach programs")
                .remedy("run as root")
        }
        Attachable::Busy | Attachable::No(_) => Finding::note(
            "TC egress",
            "no TCX link (Linux 6.6 has them), so the program will be a filter on a clsact qdisc",
        ),
    }
}

/// A tag that the network card took off the frame is invisible to XDP, and the answer would leave without it.
fn vlan_offload(name: &str, settings: Option<&str>) -> Finding {
    let subject = "VLAN tags";
    let Some(settings) = settings else {
        return Finding::note(subject, "not looked at, since there is no ethtool").remedy(format!(
            "if the replicas' packets are tagged, see that `ethtool -k {name}` says rx-vlan-offload: off"
        ));
    };
    let line = settings
        .lines()
        .find_map(|line| line.trim().strip_prefix("rx-vlan-offload:"));
    match line.map(str::trim) {
        Some(value) if value.starts_with("on") => Finding::note(
            subject,
            "taken off by the network card (rx-vlan-offload), unseen by XDP",
        )
        .remedy(format!(
            "if the replicas' packets are tagged: ethtool -K {name} rx-vlan-offload off"
        )),
        _ => Finding::ok(subject, "left in the frames"),
    }
}

fn neighbours(interface: &Interface) -> Finding {
    let list = |known: bool| {
        let of_this_sort = interface
            .neighbours
            .iter()
            .filter(|neighbour| neighbour.mac.is_some() == known);
        let addresses: Vec<String> = of_this_sort
            .map(|neighbour| neighbour.address.to_string())
            .collect();
        addresses.join(", ")
    };
    match (list(true), list(false)) {
        (known, silent) if known.is_empty() && silent.is_empty() => Finding::note(
            "neighbours",
            "no MAC address known yet; a replica has them looked up itself",
        ),
        (known, silent) if silent.is_empty() => Finding::ok("neighbours", known),
        (known, silent) if known.is_empty() => {
            Finding::note("neighbours", format!("no answer from {silent}"))
        }
        (known, silent) => Finding::note("neighbours", format!("{known}; no answer from {silent}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn generic_xdp_is_a_note_and_none_is_not_ok() {
        let no = || Attachable::No("EOPNOTSUPP".into());
        let verdict = |native, generic| xdp_finding("eth0", None, &native, &generic).verdict;
        assert_eq!(verdict(Attachable::Yes, Attachable::Yes), Verdict::Ok);
        assert_eq!(verdict(no(), Attachable::Yes), Verdict::Note);
        assert_eq!(verdict(no(), no()), Verdict::NotOk);
        assert_eq!(verdict(Attachable::Busy, Attachable::Yes), Verdict::NotOk);
        assert_eq!(
            verdict(Attachable::Forbidden, Attachable::Yes),
            Verdict::NotOk
        );
    }

    #[test]
    fn a_replicas_own_program_is_no_obstacle_worth_removing() {
        let busy = |program| xdp_finding("eth0", program, &Attachable::Busy, &Attachable::Yes);
        assert_eq!(busy(Some("dispatch")).verdict, Verdict::Note);
        assert_eq!(
            busy(Some("filter")).remedy.as_deref(),
            Some("ip link set dev eth0 xdp off")
        );
    }

    #[test]
    fn offloaded_tags_are_said_with_the_command_that_keeps_them() {
        let on = "Features for eth0:\nrx-checksumming: on\nrx-vlan-offload: on\n";
        let finding = vlan_offload("eth0", Some(on));
        assert_eq!(finding.verdict, Verdict::Note);
        assert!(
            finding
                .remedy
                .unwrap()
                .ends_with("ethtool -K eth0 rx-vlan-offload off")
        );
        let fixed = vlan_offload("eth0", Some("rx-vlan-offload: off [fixed]\n"));
        assert_eq!(fixed.verdict, Verdict::Ok);
        let unknown = vlan_offload("eth0", None);
        assert_eq!(unknown.verdict, Verdict::Note);
        assert!(unknown.remedy.unwrap().contains("`ethtool -k eth0`"));
    }
}
