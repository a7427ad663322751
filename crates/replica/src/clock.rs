//! Time and randomness: the two things that the core must be given.

use std::fs::File;
use std::io::{self, Read};
use std::sync::OnceLock;

use electrode_vr::{Nonce, Time};
use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds in a millisecond.
pub(crate) const MS: u64 = 1_000_000;

/// The boot clock: monotonic, and it goes on while the machine is suspended, which a lease must not outlast.
pub(crate) fn now() -> Time {
    read(ClockId::Boottime)
}

/// By how much the boot clock is ahead of the one that the kernel's programs read, in nanoseconds.
///
/// Programs read the machine's monotonic clock, also where the process lives in a time namespace whose clocks have an offset
/// (time_namespaces(7)).
pub(crate) fn programs_to_boot() -> i64 {
    static OFFSET: OnceLock<i64> = OnceLock::new();
    // A process can't change its namespace's offsets, so they are read once. Kernels without such namespaces have no file.
    let offset = OFFSET.get_or_init(|| {
        std::fs::read_to_string("/proc/self/timens_offsets")
            .ok()
            .and_then(|offsets| monotonic_offset(&offsets))
            .unwrap_or(0)
    });
    let ahead = now().0.wrapping_sub(read(ClockId::Monotonic).0);
    ahead.cast_signed().saturating_add(*offset)
}

/// The monotonic clock's offset in nanoseconds, from lines of a clock's name, seconds and nanoseconds.
fn monotonic_offset(offsets: &str) -> Option<i64> {
    let mut lines = offsets.lines().map(str::split_whitespace);
    let mut line = lines.find(|line| line.clone().next() == Some("monotonic"))?;
    let (seconds, nanoseconds): (i64, i64) =
        (line.nth(1)?.parse().ok()?, line.next()?.parse().ok()?);
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

fn read(clock: ClockId) -> Time {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    Time(
        seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(nanoseconds),
    )
}

/// A stream of nonces: seeded once by the kernel, then without system calls (SplitMix64, Steele et al., OOPSLA 2014).
/// Nonces tell answers apart and spread time-outs; nothing secret hangs on them.
#[derive(Debug)]
pub(crate) struct Entropy(u64);

impl Entropy {
    /// Seeds the stream.
    pub(crate) fn from_kernel() -> io::Result<Entropy> {
        let mut seed = [0; 8];
        File::open("/dev/urandom")?.read_exact(&mut seed)?;
        Ok(Entropy(u64::from_ne_bytes(seed)))
    }

    /// The next nonce, never 0.
    pub(crate) fn next(&mut self) -> Nonce {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Nonce((mixed ^ (mixed >> 31)).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_forward() {
        let before = now();
        assert!(before.0 > 0 && now() >= before);
    }

    #[test]
    fn the_offset_of_a_time_namespace_is_read() {
        let offset = |text| monotonic_offset(text);
        assert_eq!(
            offset("monotonic        1000         5\nboottime  7  0\n"),
            Some(1_000_000_000_005)
        );
        assert_eq!(
            offset("boottime  7  0\nmonotonic  -2  500000000\n"),
            Some(-1_500_000_000)
        );
        for none in [
            "",
            "monotonic",
            "monotonic x 0",
            "monotonic 99999999999999 0",
        ] {
            assert_eq!(offset(none), None, "{none:?}");
        }
    }

    #[test]
    fn nonces_differ_and_are_never_zero() {
        let mut entropy = Entropy(7);
        let nonces: std::collections::HashSet<_> = (0..1000).map(|_| entropy.next()).collect();
        assert_eq!(nonces.len(), 1000);
        assert!(!nonces.contains(&Nonce(0)));
    }
}
