//! One level-triggered epoll; the timeout is an argument of the wait, so that no timer needs a system call of its own.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::time::Timespec;

use crate::calls::counted;

/// What can be readable.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
pub(crate) enum Source {
    /// The UDP socket.
    Socket = 1,
    /// The kernel's ring buffer.
    Ring = 2,
    /// Routes and neighbours.
    Netlink = 4,
    /// The executor was woken.
    Background = 8,
    /// SIGTERM or SIGINT.
    Signal = 16,
    /// A [`crate::Stop`] handle.
    Stop = 32,
    /// The log on disk.
    Disk = 64,
}

/// Which of them are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ready(u64);

impl Ready {
    pub(crate) fn has(self, source: Source) -> bool {
        self.0 & source as u64 != 0
    }
}

/// The epoll.
pub(crate) struct Reactor {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Reactor {
    pub(crate) fn new() -> io::Result<Reactor> {
        Ok(Reactor {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(8),
        })
    }

    /// Watches `fd` from now; it has to stay open as long as the reactor.
    pub(crate) fn watch(&self, fd: impl AsFd, source: Source) -> io::Result<()> {
        Ok(epoll::add(
            &self.epoll,
            fd,
            EventData::new_u64(source as u64),
            EventFlags::IN,
        )?)
    }

    /// Waits at most `nanoseconds` (`None`: for ever) and says what is readable.
    pub(crate) fn wait(&mut self, nanoseconds: Option<u64>) -> io::Result<Ready> {
        let timeout = nanoseconds.map(|nanoseconds| Timespec {
            tv_sec: i64::try_from(nanoseconds / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: (nanoseconds % 1_000_000_000).try_into().unwrap_or(0),
        });
        self.events.clear();
        let spare = rustix::buffer::spare_capacity(&mut self.events);
        match counted(|| epoll::wait(&self.epoll, spare, timeout.as_ref())) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Ready::default()),
            Err(errno) => return Err(errno.into()),
        }
        Ok(Ready(
            self.events
                .iter()
                .fold(0, |ready, event| ready | event.data.u64()),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn names_what_is_readable_until_it_is_drained() {
        let mut reactor = Reactor::new().unwrap();
        let stop = crate::Stop::new().unwrap();
        reactor.watch(&stop, Source::Stop).unwrap();
        assert_eq!(reactor.wait(Some(0)).unwrap(), Ready::default());
        stop.stop();
        for _ in 0..2 {
            let ready = reactor.wait(None).unwrap();
            assert!(ready.has(Source::Stop) && !ready.has(Source::Socket));
        }
    }

    #[test]
    fn sleeps_as_long_as_asked() {
        let started = Instant::now();
        Reactor::new().unwrap().wait(Some(20_000_000)).unwrap();
        assert!(started.elapsed() >= Duration::from_millis(19));
    }
}
