//! Whether the kernel takes what the programs are made of, and the programs themselves.

use std::net::{Ipv4Addr, SocketAddr};

use electrode_dataplane::probe::{self, Outcome};
use electrode_dataplane::{AttachError, Dataplane, Options, Programs};
use electrode_vr::ReplicaId;

use super::finding::Finding;

pub(super) fn examine() -> Vec<Finding> {
    let features = probe::features();
    if features
        .iter()
        .any(|feature| feature.outcome == Outcome::Forbidden)
    {
        let finding = Finding::not_ok("eBPF programs", "this process may load none");
        return vec![
            finding.remedy("run as root; in a container, allow the system call bpf as well"),
        ];
    }
    let mut findings: Vec<Finding> = features
        .into_iter()
        .map(|feature| match feature.outcome {
            Outcome::Missing(reason) => Finding::not_ok(
                feature.name,
                format!(
                    "refused, so no {}; {reason}",
                    feature.needed_by.replace(", ", " or ")
                ),
            )
            .remedy("use Linux 5.15 or later"),
            _ => Finding::ok(feature.name, format!("for {}", feature.needed_by)),
        })
        .collect();
    let none = Programs::default();
    findings.extend([
        load(
            "dispatch, prepare",
            Programs {
                prepare: true,
                ..none
            },
        ),
        load(
            "dispatch, prepare_ok",
            Programs {
                prepare_ok: true,
                ..none
            },
        ),
        load(
            "broadcast",
            Programs {
                broadcast: true,
                ..none
            },
        ),
    ]);
    findings
}

/// Loads the programs as a replica would, but attaches them nowhere.
fn load(names: &str, programs: Programs) -> Finding {
    // Addresses for documentation (RFC 5737): nothing is sent to them.
    let address = |host| SocketAddr::from((Ipv4Addr::new(192, 0, 2, host), 1));
    let options = Options {
        interface: "lo".into(),
        programs,
        answer: true,
        allow_generic: true,
        index: ReplicaId(0),
        replicas: (1..=3).map(address).collect(),
        key: [0; 16],
    };
    let subject = format!("programs {names}");
    match Dataplane::load(&options) {
        Ok(_) => Finding::ok(subject, "loaded"),
        // No fault of the kernel's programs: a network namespace may lack even this.
        Err(AttachError::NoInterface(_)) => Finding::note(
            subject,
            "not tried: this network namespace has no interface lo",
        ),
        Err(error) => Finding::not_ok(subject, error.to_string()),
    }
}
