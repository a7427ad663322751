//! What a service manager is told, if there is one: ready, status, still alive, stopping; and what it tells: to stop.

use std::time::Duration;

use electrode_vr::Time;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use sd_notify::NotifyState;

use crate::calls::counted;

/// The service manager's watchdog, when it has one.
#[derive(Debug)]
pub(crate) struct Supervisor {
    interval: Option<u64>,
    next: Time,
}

impl Supervisor {
    /// Reads from the environment whether there is a watchdog; it is fed at a third of its patience.
    pub(crate) fn from_environment(now: Time) -> Supervisor {
        let third = |patience: Duration| {
            u64::try_from(patience.as_nanos() / 3)
                .unwrap_or(u64::MAX)
                .max(1)
        };
        Supervisor {
            interval: sd_notify::watchdog_enabled().map(third),
            next: now,
        }
    }

    /// When the watchdog has to be fed next.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.interval.map(|_| self.next)
    }

    /// Feeds the watchdog when it is time.
    pub(crate) fn feed(&mut self, now: Time) {
        if let Some(interval) = self.interval
            && now >= self.next
        {
            self.next = now.plus(interval);
            tell(&[NotifyState::Watchdog]);
        }
    }

    /// The socket is bound and the loop about to run.
    pub(crate) fn ready(&self) {
        tell(&[NotifyState::Ready]);
    }

    /// One line for `systemctl status`.
    pub(crate) fn status(&self, line: &str) {
        tell(&[NotifyState::Status(line)]);
    }

    /// The replica was told to stop.
    pub(crate) fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = counted(|| sd_notify::notify(state)) {
        tracing::debug!("the service manager can't be told: {error}");
    }
}

/// Blocks SIGTERM and SIGINT for this thread and gives a descriptor that is readable when one came.
pub(crate) fn stop_signals() -> nix::Result<SignalFd> {
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block()?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}
