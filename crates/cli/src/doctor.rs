//! `electrode doctor`: whether the fast path can run here, and what to do where it can't.
//!
//! It asks the kernel itself, by loading tiny programs and then the real ones, rather than inferring from versions. It
//! changes nothing that lasts.

mod finding;
mod interface;
mod machine;
mod programs;

use std::io::Write;
use std::process::ExitCode;

use argh::FromArgs;

use finding::{Finding, Verdict};

/// Say whether the fast path can run on this machine, and what to do where it can't.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "doctor",
    error_code(1, "replicas can run here in user space only")
)]
pub(crate) struct Doctor {
    /// network interface to look at; a program that passes everything is attached to it for a moment, which
    /// interrupts the link on some drivers
    #[argh(option)]
    interface: Option<String>,

    /// print one JSON object
    #[argh(switch)]
    json: bool,
}

pub(crate) fn run(arguments: Doctor) -> ExitCode {
    let mut findings = machine::examine();
    findings.extend(programs::examine());
    match &arguments.interface {
        Some(name) => findings.extend(interface::examine(name)),
        None => findings.push(
            Finding::note("interface", "not looked at")
                .remedy("name the one between the replicas: electrode doctor --interface eth0"),
        ),
    }
    let able = findings
        .iter()
        .all(|finding| finding.verdict != Verdict::NotOk);
    let text = if arguments.json {
        as_json(&findings, able)
    } else {
        as_text(&findings, able)
    };
    // A reader that has gone away wants no more lines.
    let _ = std::io::stdout().write_all(text.as_bytes());
    if able {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn as_text(findings: &[Finding], able: bool) -> String {
    let width = findings
        .iter()
        .map(|finding| finding.subject.len())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let verdict = finding.verdict.word();
        // What the kernel says may have several lines: all of them under the first.
        let indent = format!("\n{:1$}", "", "not ok".len() + 2 + width + 2);
        let mut rest = finding.detail.replace('\n', &indent);
        if let Some(remedy) = &finding.remedy {
            rest.push_str(": ");
            rest.push_str(remedy);
        }
        text.push_str(&format!(
            "{verdict:6}  {:width$}  {rest}\n",
            finding.subject
        ));
    }
    text.push_str(if able {
        "\nThe fast path can run here.\n"
    } else {
        "\nReplicas run here in user space only, as with --accelerate none.\n"
    });
    text
}

fn as_json(findings: &[Finding], able: bool) -> String {
    let findings: Vec<serde_json::Value> = findings
        .iter()
        .map(|finding| {
            serde_json::json!({
                "verdict": finding.verdict.word(),
                "subject": finding.subject,
                "detail": finding.detail,
                "remedy": finding.remedy,
            })
        })
        .collect();
    let object = serde_json::json!({ "fast_path": able, "findings": findings });
    format!("{object:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_verdict_subject_detail_and_remedy() {
        let findings = [
            Finding::ok("kernel", "Linux 6.18.0"),
            Finding::not_ok("tail call", "refused\nby the verifier").remedy("use a newer kernel"),
        ];
        let text = as_text(&findings, false);
        let expected = "ok      kernel     Linux 6.18.0\n\
            not ok  tail call  refused\n                   by the verifier: use a newer kernel\n\
            \nReplicas run here in user space only, as with --accelerate none.\n";
        assert_eq!(text, expected);
    }
}
