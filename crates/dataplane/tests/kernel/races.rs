//! The programs on two CPUs against user space's half on a third thread: rules R1 to R4 where they are hardest to keep.

mod log;
mod slots;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

/// Packets that the programs see, over all threads.
const PACKETS: u64 = 200_000;
/// What a slow machine is given.
const PATIENCE: Duration = Duration::from_secs(60);

/// What user space tells the threads that play the network: the view, and (as a hint only) the log's last op.
#[derive(Default)]
struct Network {
    view: AtomicU64,
    last: AtomicU64,
    packets: AtomicU64,
    over: AtomicBool,
}

impl Network {
    /// Ends the others too when one of the threads fails.
    fn ends_with_me(&self) -> Ending<'_> {
        Ending(self)
    }
}

struct Ending<'n>(&'n Network);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, SeqCst);
    }
}

/// Marsaglia's xorshift64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
