//! The answers as a table for people, and what doesn't fit a column below it.

use std::fmt::Write as _;

use electrode_replica::{Accelerated, StatusReport};

use super::Answer;
use super::health::Health;

const HEAD: [&str; 9] = [
    "INDEX",
    "ADDRESS",
    "ROLE",
    "STATUS",
    "VIEW",
    "OP",
    "COMMIT",
    "LAG",
    "ACCELERATED",
];

/// The table, the counters, the notices, and the verdict as the last line.
pub(super) fn render(answers: &[Answer], health: &Health) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(answers.iter().map(|answer| row(answer, health)));
    let widths: [usize; HEAD.len()] = std::array::from_fn(|column| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    });
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    for answer in answers {
        if let Ok(report) = &answer.report {
            details(answer.index, report, &mut text);
        }
    }
    let _ = writeln!(text, "\n{health}");
    text
}

fn row(answer: &Answer, health: &Health) -> [String; HEAD.len()] {
    let index = answer.index.to_string();
    let address = answer.address.clone();
    match &answer.report {
        Ok(report) => [
            index,
            address,
            report.role.clone(),
            report.status.clone(),
            report.view.to_string(),
            report.op.to_string(),
            report.commit.to_string(),
            health.behind(report).to_string(),
            accelerated(&report.accelerated),
        ],
        Err(why) => {
            let nothing = || "-".to_owned();
            let unreachable = "unreachable".to_owned();
            [
                index,
                address,
                nothing(),
                unreachable,
                nothing(),
                nothing(),
                nothing(),
                nothing(),
                why.clone(),
            ]
        }
    }
}

/// How, or why not.
fn accelerated(accelerated: &Accelerated) -> String {
    let mut text = accelerated.mode().to_owned();
    if let Some(why) = &accelerated.why {
        let _ = write!(text, ": {why}");
        return text;
    }
    let hooks = [("XDP", &accelerated.xdp), ("TC", &accelerated.tc)];
    let hooks: Vec<String> = hooks
        .iter()
        .map(|(name, hook)| format!("{name} {hook}"))
        .collect();
    let interface = accelerated.interface.as_deref().unwrap_or("-");
    let fenced = if accelerated.armed { "" } else { "; fenced" };
    let _ = write!(text, " ({}, {interface}{fenced})", hooks.join(", "));
    text
}

fn details(index: usize, report: &StatusReport, text: &mut String) {
    if usize::from(report.index) != index {
        let _ = writeln!(
            text,
            "  {index}: says it is replica {}: another configuration?",
            report.index
        );
    }
    if let Some(reason) = &report.reason {
        let _ = writeln!(text, "  {index}: {}: {reason}", report.status);
    }
    for (program, counters) in &report.counters {
        let counters: Vec<String> = counters
            .iter()
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        let _ = writeln!(text, "  {index}: {program}: {}", counters.join(", "));
    }
    if let Some(durable) = report.durable {
        let (writes, syncs) = (report.driver.disk_writes, report.driver.disk_syncs);
        let _ = writeln!(
            text,
            "  {index}: on disk up to op {durable}: {writes} writes, {syncs} syncs"
        );
    } else {
        let _ = writeln!(text, "  {index}: log in {}", report.durability);
    }
    let driver = &report.driver;
    let _ = writeln!(
        text,
        "  {index}: user space: in {}, out {}, requests {}, system calls {}",
        driver.packets_in, driver.packets_out, driver.requests, driver.syscalls
    );
    if !driver.dropped.is_empty() {
        let dropped: Vec<String> = driver
            .dropped
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        let _ = writeln!(text, "  {index}: dropped: {}", dropped.join(", "));
    }
    for notice in &report.notices {
        let _ = writeln!(text, "  {index}: latest {notice}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_the_verdict_comes_last() {
        let off = Accelerated {
            xdp: "off".into(),
            tc: "off".into(),
            why: Some("--accelerate none".into()),
            ..Accelerated::default()
        };
        let report = StatusReport {
            status: "normal".into(),
            role: "primary".into(),
            commit: 1234,
            accelerated: off,
            notices: vec!["wrong_group: from nowhere".into()],
            ..StatusReport::default()
        };
        let answers = [
            Answer {
                index: 0,
                address: "10.0.0.1:7000".into(),
                report: Ok(report),
            },
            Answer {
                index: 1,
                address: "10.0.0.22:7000".into(),
                report: Err("no answer in 500 ms".into()),
            },
        ];
        let text = render(&answers, &Health::of(&answers));
        let lines: Vec<&str> = text.lines().collect();
        let column = lines[0].find("ACCELERATED").unwrap();
        assert_eq!(&lines[1][column..], "off: --accelerate none");
        assert_eq!(&lines[2][column..], "no answer in 500 ms");
        assert!(
            lines
                .iter()
                .any(|line| line.contains("latest wrong_group: from nowhere"))
        );
        assert!(lines.last().unwrap().contains("can't serve"), "{text}");
    }

    #[test]
    fn accelerated_says_how() {
        let native = Accelerated {
            xdp: "native".into(),
            tc: "tcx".into(),
            interface: Some("eth0".into()),
            armed: true,
            why: None,
        };
        assert_eq!(accelerated(&native), "native (XDP native, TC tcx, eth0)");
    }
}
