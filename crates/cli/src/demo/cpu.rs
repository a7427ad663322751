//! How much processor time was used, by processes and by the whole machine.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The kernel's unit in `/proc/stat`, on every architecture that Electrode runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds, user and system, that all threads of a process have run so far.
///
/// The scheduler's own nanoseconds: the ticks of `/proc/PID/stat` are too coarse for a run of a second.
pub(super) fn of_process(pid: u32) -> Result<f64> {
    let directory = format!("/proc/{pid}/task");
    let threads = fs::read_dir(&directory).with_context(|| format!("reading {directory}"))?;
    let mut nanoseconds = 0;
    for thread in threads {
        let path = thread?.path().join("schedstat");
        // A thread may have ended since the directory was read.
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        nanoseconds += ran(&text).with_context(|| format!("{}: {text:?}", path.display()))?;
    }
    if nanoseconds > 0 {
        return Ok(nanoseconds as f64 / 1e9);
    }
    // A kernel that was built without the scheduler's own account.
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let ticks = charged(&text).with_context(|| format!("{path}: {text:?}"))?;
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// Seconds that all CPUs of the machine have been busy: user, nice, system and interrupts, hard and soft.
pub(super) fn of_system() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    let ticks = busy(&text).with_context(|| format!("/proc/stat: {text:?}"))?;
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// How many CPUs' worth of time something else on this machine is using just now. While that goes on, figures of the whole
/// machine say little.
pub(super) fn used_by_others() -> Result<f64> {
    const LOOKING: Duration = Duration::from_millis(300);
    let before = of_system()?;
    let started = Instant::now();
    std::thread::sleep(LOOKING);
    Ok((of_system()? - before) / started.elapsed().as_secs_f64())
}

/// The first number of a `schedstat`: nanoseconds on a CPU.
fn ran(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

/// The ticks, user and system, in a process's `stat`: the 14th and 15th field. The second, the command's name, is in
/// parentheses and may hold anything.
fn charged(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// The busy ticks in the first line of `/proc/stat`: cpu user nice system idle iowait irq softirq ...
fn busy(stat: &str) -> Option<u64> {
    let line = stat.lines().find(|line| line.starts_with("cpu "))?;
    let numbers: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .map_while(|word| word.parse().ok())
        .collect();
    match numbers.as_slice() {
        [user, nice, system, _idle, _iowait, irq, softirq, ..] => {
            Some(user + nice + system + irq + softirq)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_waiting_time_are_not_busy_time() {
        let stat = "cpu  1 20 300 5000 60000 4 50 600 0 0\ncpu0 9 9 9 9 9 9 9 9 9 9\n";
        assert_eq!(busy(stat), Some(1 + 20 + 300 + 4 + 50));
        assert_eq!(busy("cpu 1 2 3"), None);
        assert_eq!(busy("intr 5"), None);
    }

    #[test]
    fn a_name_with_parentheses_and_spaces_moves_no_field() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 25 0 0 20 0 1";
        assert_eq!(charged(stat), Some(150 + 25));
        assert_eq!(charged("7 (a) S 1 2"), None);
    }

    #[test]
    fn a_process_that_works_uses_time() {
        // A process of its own: threads of this one come and go with the tests, and take their time with them.
        let mut worker = std::process::Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn()
            .unwrap();
        let before = of_process(worker.id()).unwrap();
        let worked = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            of_process(worker.id()).unwrap() > before
        });
        worker.kill().unwrap();
        worker.wait().unwrap();
        assert!(worked);
        assert!(of_system().unwrap() > 0.0);
        assert!(of_process(u32::MAX).is_err());
    }
}
