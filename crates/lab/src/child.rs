//! A process on a host.

use std::process::{Command, ExitStatus, Output};
use std::sync::Arc;

use crate::LabError;
use crate::keeper::Keeper;

/// A process on a host; killed and waited for when it is dropped, and by the lab's keeper when the lab's process dies.
#[derive(Debug)]
pub struct Child {
    inner: Option<std::process::Child>,
    pid: u32,
    keeper: Arc<Keeper>,
}

impl Child {
    pub(crate) fn spawn(mut command: Command, keeper: Arc<Keeper>) -> Result<Child, LabError> {
        let inner = command
            .spawn()
            .map_err(LabError::io(format!("starting {command:?}")))?;
        let child = Child {
            pid: inner.id(),
            inner: Some(inner),
            keeper,
        };
        child.keeper.child(child.pid)?;
        Ok(child)
    }

    /// Its process id: that of the command itself.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its standard output, where that was piped; once.
    pub fn take_stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.inner.as_mut()?.stdout.take()
    }

    /// Its standard error, where that was piped; once.
    pub fn take_stderr(&mut self) -> Option<std::process::ChildStderr> {
        self.inner.as_mut()?.stderr.take()
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// The system can't say.
    pub fn try_wait(&mut self) -> std::io::Result<Option<ExitStatus>> {
        let Some(inner) = self.inner.as_mut() else {
            return Ok(None);
        };
        let status = inner.try_wait()?;
        if status.is_some() {
            self.keeper.child_gone(self.pid);
        }
        Ok(status)
    }

    /// Waits for its end and returns that, with whatever it wrote to pipes.
    ///
    /// # Errors
    /// Its output can't be read.
    pub fn wait_with_output(mut self) -> std::io::Result<Output> {
        let Some(inner) = self.inner.take() else {
            return Err(std::io::ErrorKind::NotFound.into());
        };
        let output = inner.wait_with_output();
        self.keeper.child_gone(self.pid);
        output
    }

    /// Sends a signal, for example [`rustix::process::Signal::STOP`].
    ///
    /// # Errors
    /// It has ended and was waited for.
    pub fn signal(&self, signal: rustix::process::Signal) -> std::io::Result<()> {
        if self.inner.is_none() {
            return Err(std::io::ErrorKind::NotFound.into());
        }
        let pid = i32::try_from(self.pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw)
            .ok_or(std::io::ErrorKind::NotFound)?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// SIGSTOP: the process stands still, and whatever it left in the kernel goes on.
    ///
    /// # Errors
    /// As [`Child::signal`].
    pub fn pause(&self) -> std::io::Result<()> {
        self.signal(rustix::process::Signal::STOP)
    }

    /// SIGCONT: the end of [`Child::pause`].
    ///
    /// # Errors
    /// As [`Child::signal`].
    pub fn resume(&self) -> std::io::Result<()> {
        self.signal(rustix::process::Signal::CONT)
    }

    /// SIGKILL, as of a machine that loses power, and waits until it is gone.
    ///
    /// # Errors
    /// The system can't.
    pub fn kill(&mut self) -> std::io::Result<()> {
        if let Some(mut inner) = self.inner.take() {
            inner.kill()?;
            self.keeper.child_gone(self.pid);
            inner.wait()?;
        }
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
