//! The one table.

use super::Plan;
use super::group::Mode;
use super::report::{Report, Run};

/// The middle one of the values; 0 without any.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

/// The runs of one mode with so many clients.
pub(super) fn runs(report: &Report, mode: Mode, clients: usize) -> Vec<&Run> {
    let name = mode.to_string();
    let runs = report.runs.iter();
    runs.filter(|run| run.mode == name && run.clients == clients)
        .collect()
}

/// The median of one figure over the rounds.
pub(super) fn median_of(runs: &[&Run], figure: impl Fn(&Run) -> f64) -> f64 {
    median(runs.iter().map(|run| figure(run)).collect())
}

pub(super) fn print(plan: &Plan, report: &Report) {
    println!();
    println!(
        "{} replicas; medians of {} x {} s; CPU of replicas, primary and machine in seconds per 10,000 requests; \
         system calls of the primary per request",
        plan.replicas, plan.rounds, plan.seconds
    );
    println!(
        "{:>7}  {:<12} {:>8} {:>8} {:>8} {:>9} {:>9} {:>9} {:>9}  packets handled in the kernel, per request",
        "clients",
        "mode",
        "req/s",
        "p50 us",
        "p99 us",
        "replicas",
        "primary",
        "machine",
        "syscalls"
    );
    for &clients in &plan.clients {
        for mode in [Mode::Unreplicated, Mode::Plain, Mode::Accelerated] {
            let runs = runs(report, mode, clients);
            if !runs.is_empty() {
                println!("{}", row(clients, mode, &runs));
            }
        }
    }
    println!("{}", floor(report));
}

fn row(clients: usize, mode: Mode, runs: &[&Run]) -> String {
    let of = |figure: fn(&Run) -> f64| median_of(runs, figure);
    format!(
        "{clients:>7}  {:<12} {:>8.0} {:>8.1} {:>8.1} {:>9.3} {:>9.3} {:>9.3} {:>9.2}  {}",
        mode.to_string(),
        of(|run| run.requests_per_s),
        of(|run| run.p50_us),
        of(|run| run.p99_us),
        of(|run| run.replica_cpu_s_per_10k),
        of(|run| run.primary_cpu_s_per_10k),
        of(|run| run.system_cpu_s_per_10k),
        of(|run| run.primary_syscalls_per_request),
        kernel(runs)
    )
}

/// What each program did in the kernel, per request; a dash where none was attached.
fn kernel(runs: &[&Run]) -> String {
    if runs.iter().all(|run| run.kernel.is_empty()) {
        return "-".to_owned();
    }
    let per_request = |counters: &[(&str, &str)]| {
        median_of(runs, |run| {
            let counted = counters
                .iter()
                .map(|(program, name)| run.counted(program, name));
            counted.sum::<u64>() as f64 / run.requests as f64
        })
    };
    format!(
        "prepare {:.2}, prepare_ok {:.2}, broadcast {:.2}",
        per_request(&[("prepare", "acked")]),
        per_request(&super::verdict::ACKS_IN_THE_KERNEL.map(|name| ("prepare_ok", name))),
        per_request(&[("broadcast", "cloned")])
    )
}

fn floor(report: &Report) -> String {
    let floor = &report.floor;
    let echo = match floor.xdp_echo_us {
        Some(echo) => format!("; XDP_TX echo {echo:.1} us"),
        None => String::new(),
    };
    format!(
        "floor: a 64-byte UDP round trip {:.1} us blocking, {:.1} us polling{echo}",
        floor.udp_blocking_us, floor.udp_polling_us
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two() {
        assert_eq!(median(vec![]), 0.0);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
