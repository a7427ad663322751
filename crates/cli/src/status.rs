//! `electrode status`: show the replicas of a group.

mod health;
mod query;
mod table;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use argh::FromArgs;
use electrode_config::Config;
use electrode_replica::StatusReport;

use crate::replica::default_config;
use health::Health;

/// How often `--watch` asks.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// show the replicas of a group; the exit code is 0 when a quorum is normal with one primary, 3 otherwise
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "status")]
pub(crate) struct Status {
    /// configuration file (default: $ELECTRODE_CONFIG, then ./config.txt)
    #[argh(option)]
    config: Option<PathBuf>,

    /// print one JSON object
    #[argh(switch)]
    json: bool,

    /// ask again every second until interrupted
    #[argh(switch)]
    watch: bool,

    /// how long to wait for answers, in milliseconds (default: 500)
    #[argh(option, default = "500")]
    timeout_ms: u64,
}

/// One replica of the configuration and what it said.
#[derive(Debug)]
struct Answer {
    index: usize,
    address: String,
    /// The report, or why there is none.
    report: Result<StatusReport, String>,
}

pub(crate) fn run(arguments: Status) -> ExitCode {
    let patience = Duration::from_millis(arguments.timeout_ms.max(1));
    loop {
        let health = match show(&arguments, patience) {
            Ok(health) => health,
            Err(error) => {
                eprintln!("electrode status: {error:#}");
                return ExitCode::from(2);
            }
        };
        if !arguments.watch {
            return ExitCode::from(if health.is_healthy() { 0 } else { 3 });
        }
        thread::sleep(WATCH_EVERY);
    }
}

fn show(arguments: &Status, patience: Duration) -> anyhow::Result<Health> {
    let config = Config::load(default_config(arguments.config.clone()))?;
    let addresses = config.resolve()?;
    let answers = query::ask(&addresses, patience)?;
    let health = Health::of(&answers);
    let text = if arguments.json {
        as_json(&answers, &health)
    } else {
        table::render(&answers, &health)
    };
    let mut out = std::io::stdout().lock();
    if arguments.watch && !arguments.json && out.is_terminal() {
        // Home, and clear what an earlier, longer table left.
        write!(out, "\x1b[H\x1b[J")?;
    }
    writeln!(out, "{}", text.trim_end())?;
    out.flush()?;
    Ok(health)
}

fn as_json(answers: &[Answer], health: &Health) -> String {
    let replicas: Vec<serde_json::Value> =
        answers.iter().map(|answer| row(answer, health)).collect();
    let summary = serde_json::json!({
        "healthy": health.is_healthy(),
        "summary": health.to_string(),
        "replicas": replicas,
    });
    summary.to_string()
}

fn row(answer: &Answer, health: &Health) -> serde_json::Value {
    match &answer.report {
        Ok(report) => {
            let mut value = serde_json::to_value(report).unwrap_or_default();
            value["reachable"] = true.into();
            value["behind"] = health.behind(report).into();
            value
        }
        Err(why) => serde_json::json!({
            "index": answer.index,
            "address": answer.address,
            "reachable": false,
            "why": why,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_tells_the_reachable_from_the_others() {
        let report = StatusReport {
            commit: 5,
            status: "normal".into(),
            ..StatusReport::default()
        };
        let answers = [
            Answer {
                index: 0,
                address: "a:1".into(),
                report: Ok(report),
            },
            Answer {
                index: 1,
                address: "b:1".into(),
                report: Err("no answer".into()),
            },
        ];
        let text = as_json(&answers, &Health::of(&answers));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["healthy"], false);
        assert_eq!(
            (
                &value["replicas"][0]["commit"],
                &value["replicas"][0]["reachable"]
            ),
            (&5.into(), &true.into())
        );
        assert_eq!(value["replicas"][1]["why"], "no answer");
    }
}
