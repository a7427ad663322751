//! Counts the system calls of the driver's thread, because their number per request is a promise that `status` lets
//! anyone check. Calls that the C library answers without the kernel (reading the clock) aren't counted.

use std::cell::Cell;

thread_local! {
    static TOTAL: Cell<u64> = const { Cell::new(0) };
}

/// Makes one system call, counted.
pub(crate) fn counted<T>(call: impl FnOnce() -> T) -> T {
    TOTAL.set(TOTAL.get() + 1);
    call()
}

/// How many calls this thread has counted.
pub(crate) fn total() -> u64 {
    TOTAL.get()
}
