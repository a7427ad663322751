//! Whether the kernel did what it is there for, and what that bought.

use super::Plan;
use super::group::Mode;
use super::report::{Report, Run};
use super::table::{median_of, runs};

/// What has to be handled in the kernel of all that it could handle.
const SHARE: f64 = 0.95;

/// The ends of a PrepareOk that spare user space a packet.
pub(super) const ACKS_IN_THE_KERNEL: [&str; 4] =
    ["counted", "completed", "completed_noticed", "surplus"];

/// Says what is wrong, and last, in one sentence, what the kernel bought; whether nothing is wrong.
pub(super) fn print(plan: &Plan, report: &Report) -> bool {
    let faults = faults(plan, report);
    for fault in &faults {
        println!("FAILED: {fault}");
    }
    println!("{}", sentence(plan, report));
    faults.is_empty()
}

/// Everything that is not as it has to be.
fn faults(plan: &Plan, report: &Report) -> Vec<String> {
    let mut faults = Vec::new();
    for run in &report.runs {
        let name = format!("{}, {} clients, round {}", run.mode, run.clients, run.round);
        if !run.digests_equal {
            faults.push(format!("{name}: the replicas' logs or states differ"));
        }
        if run.replies_verified < run.requests {
            faults.push(format!(
                "{name}: {} of {} replies were verified",
                run.replies_verified, run.requests
            ));
        }
        if run.mode == Mode::Accelerated.to_string() {
            faults.extend(outside(run).map(|fault| format!("{name}: {fault}")));
        }
    }
    for &clients in &plan.clients {
        let accelerated = runs(report, Mode::Accelerated, clients);
        let plain = runs(report, Mode::Plain, clients);
        if accelerated.is_empty() || plain.is_empty() {
            continue;
        }
        let accelerated = median_of(&accelerated, |run| run.system_cpu_s_per_10k);
        let plain = median_of(&plain, |run| run.system_cpu_s_per_10k);
        if accelerated >= plain {
            faults.push(format!(
                "{clients} clients: the machine's CPU per 10,000 requests is {accelerated:.3} s accelerated and \
                 {plain:.3} s plain"
            ));
        }
    }
    faults
}

/// Which share of an accelerated run's Prepares or acks user space had to handle, where that is too much.
fn outside(run: &Run) -> impl Iterator<Item = String> {
    let acks: u64 = ACKS_IN_THE_KERNEL
        .iter()
        .map(|name| run.counted("prepare_ok", name))
        .sum();
    [
        (
            "Prepares",
            run.counted("prepare", "acked"),
            run.counted("dispatch", "prepare"),
        ),
        ("acks", acks, run.counted("dispatch", "prepare_ok")),
    ]
    .into_iter()
    .filter_map(|(what, handled, all)| {
        // None at all is no fast path either.
        let enough = all > 0 && handled as f64 >= SHARE * all as f64;
        (!enough).then(|| format!("{handled} of {all} {what} were handled in the kernel"))
    })
}

/// What the kernel bought, with the fewest clients that were asked for.
fn sentence(plan: &Plan, report: &Report) -> String {
    let clients = plan.clients.first().copied().unwrap_or(1);
    let accelerated = runs(report, Mode::Accelerated, clients);
    let plain = runs(report, Mode::Plain, clients);
    if accelerated.is_empty() {
        return "Everything ran in user space, over the loopback device: nothing was asked of the kernel; run it as \
                root to see what that buys."
            .to_owned();
    }
    let of = |runs: &[&Run], figure: fn(&Run) -> f64| median_of(runs, figure);
    let cpu = |runs: &[&Run]| of(runs, |run| run.replica_cpu_s_per_10k);
    let machine = |runs: &[&Run]| of(runs, |run| run.system_cpu_s_per_10k);
    let p50 = |runs: &[&Run]| of(runs, |run| run.p50_us);
    let rate = |runs: &[&Run]| of(runs, |run| run.requests_per_s);
    format!(
        "With its programs in the kernel a group of {} uses {:.2} instead of {:.2} s of CPU for 10,000 requests \
         ({:.0} %; the whole machine {:.0} %), with {clients} client{}: p50 {:.0} instead of {:.0} us, {:.0} \
         instead of {:.0} requests/s.",
        plan.replicas,
        cpu(&accelerated),
        cpu(&plain),
        100.0 * cpu(&accelerated) / cpu(&plain),
        100.0 * machine(&accelerated) / machine(&plain),
        if clients == 1 { "" } else { "s" },
        p50(&accelerated),
        p50(&plain),
        rate(&accelerated),
        rate(&plain),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::report::{Counters, Floor};
    use super::*;

    fn run(mode: Mode, machine: f64, kernel: Counters) -> Run {
        Run {
            mode: mode.to_string(),
            clients: 1,
            requests: 100,
            replies_verified: 100,
            digests_equal: true,
            system_cpu_s_per_10k: machine,
            kernel,
            ..Run::default()
        }
    }

    /// Programs that saw 200 Prepares and acks each, and handled so many of them.
    fn kernel(prepares: u64, acks: u64) -> Counters {
        let names = |pairs: &[(&str, u64)]| -> BTreeMap<String, u64> {
            pairs
                .iter()
                .map(|(name, n)| ((*name).to_owned(), *n))
                .collect()
        };
        BTreeMap::from([
            (
                "dispatch".to_owned(),
                names(&[("prepare", 200), ("prepare_ok", 200)]),
            ),
            ("prepare".to_owned(), names(&[("acked", prepares)])),
            (
                "prepare_ok".to_owned(),
                names(&[("completed", 100), ("surplus", acks - 100)]),
            ),
        ])
    }

    fn faults_of(runs: Vec<Run>) -> Vec<String> {
        let plan = Plan {
            replicas: 3,
            clients: vec![1],
            seconds: 1.0,
            rounds: 1,
        };
        let floor = Floor::default();
        faults(&plan, &Report { floor, runs })
    }

    #[test]
    fn a_good_run_has_no_faults() {
        let runs = vec![
            run(Mode::Plain, 2.0, Counters::new()),
            run(Mode::Accelerated, 1.0, kernel(190, 200)),
        ];
        assert_eq!(faults_of(runs), Vec::<String>::new());
    }

    #[test]
    fn each_way_to_fail_is_told() {
        let plain = || run(Mode::Plain, 2.0, Counters::new());
        let good = || run(Mode::Accelerated, 1.0, kernel(200, 200));
        let told = |changed: Run, words: &str| {
            let faults = faults_of(vec![plain(), changed]);
            assert!(faults.len() == 1 && faults[0].contains(words), "{faults:?}");
        };
        let few_prepares = kernel(189, 200);
        told(
            Run {
                kernel: few_prepares,
                ..good()
            },
            "189 of 200 Prepares",
        );
        told(
            Run {
                kernel: kernel(200, 150),
                ..good()
            },
            "150 of 200 acks",
        );
        told(
            Run {
                system_cpu_s_per_10k: 2.0,
                ..good()
            },
            "machine's CPU",
        );
        told(
            Run {
                digests_equal: false,
                ..good()
            },
            "differ",
        );
        told(
            Run {
                replies_verified: 99,
                ..good()
            },
            "99 of 100 replies",
        );
        let nothing = faults_of(vec![
            plain(),
            Run {
                kernel: Counters::new(),
                ..good()
            },
        ]);
        assert_eq!(nothing.len(), 2, "{nothing:?}");
    }
}
