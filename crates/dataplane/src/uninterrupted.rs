//! Loading programs although signals come in between.
//!
//! The verifier gives up when the thread has a signal to look at, also one that only stops and continues the process
//! (SIGSTOP, a debugger, a freezing control group): BPF_PROG_LOAD fails with EAGAIN then, and is to be repeated.

use std::io;

use aya::programs::ProgramError;

/// How often a program is loaded before the signals win. Verifying takes milliseconds; who is stopped more often than that can't
/// be waited for for ever.
const ATTEMPTS: u32 = 100;

/// Loads a program.
pub(crate) fn load(load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    repeat(
        load,
        |error| matches!(error, ProgramError::LoadError { io_error, .. } if io_error.kind() == io::ErrorKind::WouldBlock),
    )
}

fn repeat<E>(
    mut load: impl FnMut() -> Result<(), E>,
    interrupted: impl Fn(&E) -> bool,
) -> Result<(), E> {
    for _ in 1..ATTEMPTS {
        match load() {
            Err(error) if interrupted(&error) => {}
            done => return done,
        }
    }
    load()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_signal_interrupted_is_repeated_and_what_is_refused_is_not() {
        let mut calls = 0;
        let mut answers = |answers: &'static [Result<(), &'static str>]| {
            calls = 0;
            let done = repeat(
                || {
                    calls += 1;
                    answers[(calls - 1).min(answers.len() - 1)]
                },
                |error| *error == "again",
            );
            (done, calls)
        };
        assert_eq!(answers(&[Ok(())]), (Ok(()), 1));
        assert_eq!(answers(&[Err("again"), Err("again"), Ok(())]), (Ok(()), 3));
        assert_eq!(answers(&[Err("again"), Err("bad")]), (Err("bad"), 2));
        assert_eq!(answers(&[Err("again")]), (Err("again"), ATTEMPTS as usize));
    }
}
