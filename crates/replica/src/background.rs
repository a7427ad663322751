//! Everything that isn't hot: a smol executor on the driver's own thread, polled only after it was woken. Its reactor's
//! thread starts with the first task that needs one, so a replica without metrics has no thread but its own.

use std::future::{Future, pending};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use rustix::event::{EventfdFlags, eventfd};
use smol::LocalExecutor;

use crate::calls::counted;

/// The executor and the event that wakes the driver for it.
pub(crate) struct Background {
    executor: Rc<LocalExecutor<'static>>,
    running: Pin<Box<dyn Future<Output = ()>>>,
    bell: Arc<Bell>,
    waker: Waker,
}

/// Rings at most once between two polls.
struct Bell {
    event: OwnedFd,
    rung: AtomicBool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }
}

impl Background {
    pub(crate) fn new() -> io::Result<Background> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let bell = Arc::new(Bell {
            event,
            rung: AtomicBool::new(false),
        });
        let executor = Rc::new(LocalExecutor::new());
        let runner = Rc::clone(&executor);
        let running = Box::pin(async move { runner.run(pending::<()>()).await });
        Ok(Background {
            executor,
            running,
            waker: Waker::from(Arc::clone(&bell)),
            bell,
        })
    }

    /// Starts a task; it runs with the next [`Background::poll`].
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.executor.spawn(task).detach();
    }

    /// Where tasks can start tasks.
    pub(crate) fn executor(&self) -> Rc<LocalExecutor<'static>> {
        Rc::clone(&self.executor)
    }

    /// Runs what is ready. Called once at the start, and then whenever the event is readable.
    pub(crate) fn poll(&mut self) {
        let _ = counted(|| rustix::io::read(&self.bell.event, &mut [0; 8]));
        self.bell.rung.store(false, Ordering::SeqCst);
        // It never completes: `pending` doesn't.
        let _ = self
            .running
            .as_mut()
            .poll(&mut Context::from_waker(&self.waker));
    }
}

impl AsFd for Background {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::time::Duration;

    use crate::reactor::{Reactor, Source};

    #[test]
    fn a_task_that_waits_for_a_timer_wakes_the_reactor() {
        let mut background = Background::new().unwrap();
        let mut reactor = Reactor::new().unwrap();
        reactor.watch(&background, Source::Background).unwrap();
        let done = Rc::new(Cell::new(false));
        let flag = Rc::clone(&done);
        background.spawn(async move {
            smol::Timer::after(Duration::from_millis(5)).await;
            flag.set(true);
        });
        background.poll();
        assert!(!done.get());
        for _ in 0..100 {
            if done.get() {
                return;
            }
            if reactor
                .wait(Some(1_000_000_000))
                .unwrap()
                .has(Source::Background)
            {
                background.poll();
            }
        }
        panic!("the task never finished");
    }
}
