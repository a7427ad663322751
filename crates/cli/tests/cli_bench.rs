//! `electrode bench`, against a group in threads.

#[path = "../../client/tests/group/fake.rs"]
mod fake;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use electrode_apps::{Kv, Null};
use electrode_vr::{Digest, RestoreError, StateMachine};
use fake::{FakeGroup, Trouble};
use serde_json::Value;

fn run(group: &FakeGroup, directory: &Path, arguments: &[&str]) -> (i32, String, String) {
    let replicas: Vec<String> = group
        .addresses
        .iter()
        .map(|address| format!("replica {address}\n"))
        .collect();
    let config = directory.join("config.txt");
    std::fs::write(&config, format!("f 1\n{}", replicas.concat())).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_electrode"))
        .args(["bench", "--config", config.to_str().unwrap()])
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn report(group: &FakeGroup, arguments: &[&str]) -> (i32, Value) {
    let directory = tempfile::tempdir().unwrap();
    let arguments = [arguments, &["--json"]].concat();
    let (code, out, err) = run(group, directory.path(), &arguments);
    let report = serde_json::from_str(&out);
    (
        code,
        report.unwrap_or_else(|error| panic!("{error}: {out} {err}")),
    )
}

#[test]
fn every_request_is_measured_and_its_reply_verified() {
    let group = FakeGroup::start(3, Trouble::default(), Null::default());
    let (code, report) = report(
        &group,
        &["--clients", "8", "--requests", "1000", "--op=echo"],
    );
    assert_eq!(code, 0);
    assert_eq!(
        (&report["clients"], &report["requests"]),
        (&Value::from(8), &Value::from(1000))
    );
    assert_eq!(
        (&report["replies_verified"], &report["errors"]),
        (&Value::from(1000), &Value::from(0))
    );
    assert_eq!(group.executed(), 1000);
    let number = |name: &str| report[name].as_f64().unwrap();
    let order = ["p50_us", "p90_us", "p95_us", "p99_us", "max_us"].map(number);
    assert!(order[0] > 1.0 && order.is_sorted(), "{report}");
    let rate = number("requests") / number("seconds");
    assert!(
        (number("requests_per_s") / rate - 1.0).abs() < 0.01,
        "{report}"
    );
    // Little's law: with 8 clients in a closed loop, throughput times mean latency is 8; a median is at most twice the mean.
    let busy = number("requests_per_s") * number("p50_us") / 1e6;
    assert!(busy <= 16.5, "{report}");
}

#[test]
fn puts_and_gets_are_verified_too_and_the_application_is_found_out() {
    for (machine, executed) in [(true, 301), (false, 301)] {
        let group = match machine {
            true => FakeGroup::start(3, Trouble::default(), Kv::default()),
            false => FakeGroup::start(3, Trouble::default(), Null::default()),
        };
        let arguments = ["--clients", "3", "--requests", "300", "--value-size=1000"];
        let (code, report) = report(&group, &arguments);
        assert_eq!((code, &report["replies_verified"]), (0, &Value::from(300)));
        assert_eq!(group.executed(), executed, "one more to find out");
    }
}

#[test]
fn time_limits_are_kept_and_the_warmup_isnt_measured() {
    let group = FakeGroup::start(3, Trouble::default(), Null::default());
    let begun = Instant::now();
    let (code, report) = report(
        &group,
        &["--seconds", "0.4", "--warmup=300ms", "--op", "echo"],
    );
    let elapsed = begun.elapsed();
    assert_eq!(code, 0);
    assert!(
        (Duration::from_millis(700)..Duration::from_millis(1500)).contains(&elapsed),
        "{elapsed:?}"
    );
    let seconds = report["seconds"].as_f64().unwrap();
    assert!((0.35..0.6).contains(&seconds), "{report}");
    let requests = report["requests"].as_u64().unwrap();
    assert!(requests > 100 && requests < group.executed(), "{report}");
}

#[test]
fn loss_busy_replicas_and_a_change_of_view_cost_no_request() {
    let group = FakeGroup::start(
        3,
        Trouble {
            lost: 2,
            busy: 2,
            ..Trouble::default()
        },
        Null::default(),
    );
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(100));
            group.enter_view(4);
        });
        let arguments = ["--clients=16", "--requests=2000", "--op=echo"];
        let (code, report) = report(&group, &arguments);
        assert_eq!(
            (code, &report["replies_verified"]),
            (0, &Value::from(2000)),
            "{report}"
        );
    });
    assert_eq!(group.executed(), 2000);
}

/// Now and then answers wrongly.
#[derive(Default)]
struct Liar(u64);

impl StateMachine for Liar {
    fn apply(&mut self, op: &[u8]) -> Vec<u8> {
        self.0 += 1;
        let mut result = op.to_vec();
        if self.0.is_multiple_of(10) {
            result[0] ^= 1;
        }
        result
    }

    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore(&mut self, _: &[u8]) -> Result<(), RestoreError> {
        Ok(())
    }

    fn digest(&self) -> Digest {
        Digest(0)
    }
}

#[test]
fn wrong_replies_are_counted_and_exit_with_1() {
    let group = FakeGroup::start(3, Trouble::default(), Liar::default());
    let (code, report) = report(&group, &["--requests=100", "--op=echo"]);
    assert_eq!(code, 1);
    assert_eq!(
        (&report["replies_verified"], &report["errors"]),
        (&Value::from(90), &Value::from(10))
    );
    assert_eq!(report["first_error"], "a reply was wrong");
}

#[test]
fn where_nobody_answers_it_exits_with_3_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let group = FakeGroup::start(
        3,
        Trouble {
            mute: true,
            ..Trouble::default()
        },
        Null::default(),
    );
    for operation in ["--op=auto", "--op=echo"] {
        let begun = Instant::now();
        let arguments = [operation, "--deadline=300ms", "--clients=4"];
        let (code, out, err) = run(&group, directory.path(), &arguments);
        assert_eq!((code, out.as_str()), (3, ""), "{err}");
        assert!(
            err.starts_with("electrode bench: no request was answered: no answer within 3"),
            "{err}"
        );
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{:?}",
            begun.elapsed()
        );
    }
}

#[test]
fn the_report_is_text_and_the_plot_a_picture() {
    let directory = tempfile::tempdir().unwrap();
    let group = FakeGroup::start(3, Trouble::default(), Null::default());
    let plot = directory.path().join("out.svg");
    let arguments = [
        "--seconds=0.3",
        "--clients=2",
        "--plot",
        plot.to_str().unwrap(),
    ];
    let (code, out, err) = run(&group, directory.path(), &arguments);
    assert_eq!((code, err.as_str()), (0, ""));
    for word in [
        "clients     2",
        "verified, 0 errors",
        "requests/s",
        "p50",
        "max",
    ] {
        assert!(out.contains(word), "{word}: {out}");
    }
    let svg = std::fs::read_to_string(plot).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    assert!(
        svg.matches("<polyline").count() >= 2 && svg.contains("throughput"),
        "two curves"
    );
}

#[test]
fn a_plot_that_cant_be_written_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let group = FakeGroup::start(3, Trouble::default(), Null::default());
    let arguments = ["--requests=10", "--plot=/nowhere/out.svg"];
    let (code, _, err) = run(&group, directory.path(), &arguments);
    assert_eq!(code, 1);
    assert!(
        err.starts_with("electrode bench: /nowhere/out.svg: "),
        "{err}"
    );
}
