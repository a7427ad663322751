//! Whether the ring woke somebody: an edge-triggered epoll tells a wake-up from mere data.

use std::os::fd::BorrowedFd;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

/// A sleeper on the ring.
pub(crate) struct Sleeper(Epoll);

impl Sleeper {
    /// The ring must be empty, so that what is in it already doesn't count as a wake-up.
    pub(crate) fn new(ring: BorrowedFd<'_>) -> Sleeper {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("an epoll");
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll
            .add(ring, EpollEvent::new(flags, 0))
            .expect("a ring can be polled");
        let sleeper = Sleeper(epoll);
        assert!(!sleeper.woken(), "the ring isn't empty");
        sleeper
    }

    /// Whether there was a wake-up since the last call. Waits a little: the kernel's comes from an interrupt of its own.
    pub(crate) fn woken(&self) -> bool {
        self.0
            .wait(&mut [EpollEvent::empty()], 3u8)
            .expect("epoll waits")
            > 0
    }
}
