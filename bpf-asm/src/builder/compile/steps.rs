//! Counts the compiler's work, for the test that it grows as programs do; nothing outside of tests.

#[cfg(test)]
thread_local! {
    static STEPS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// So much was done.
#[inline]
pub(super) fn step(many: usize) {
    #[cfg(test)]
    STEPS.with(|steps| steps.set(steps.get() + many));
    #[cfg(not(test))]
    let _ = many;
}

/// What was done in this thread since it was asked last.
#[cfg(test)]
pub(super) fn taken() -> usize {
    STEPS.with(std::cell::Cell::take)
}
