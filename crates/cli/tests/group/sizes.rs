//! Values of every size: what fits a packet goes through the kernel, the rest around it.

use std::time::Duration;

use electrode_apps::{KvOp, KvResult};
use electrode_client::{Client, RequestError};
use electrode_replica::StatusReport;

use crate::group::{Group, kernel};

const DEADLINE: Duration = Duration::from_secs(20);

/// No request may be longer, and with its key a value of this many bytes is.
const OP_BYTES: usize = 32 << 10;

/// Puts a value of each size and gets it back.
fn round_trips(client: &Client, sizes: &[usize]) {
    for (round, size) in sizes.iter().enumerate() {
        let value: Vec<u8> = (0..*size)
            .map(|at| (at * 31 + at / 256 + size + round) as u8)
            .collect();
        let key = format!("of-{size}");
        let put = KvOp::Put {
            key: key.as_bytes(),
            value: &value,
        };
        let stored = smol::block_on(client.request(put.encode())).unwrap();
        assert_eq!(KvResult::decode(&stored), Ok(KvResult::Stored), "{size}");
        let get = KvOp::Get {
            key: key.as_bytes(),
        };
        let found = smol::block_on(client.request(get.encode())).unwrap();
        assert!(
            KvResult::decode(&found) == Ok(KvResult::Value(Some(&value))),
            "{size} bytes came back as something else"
        );
    }
}

/// Prepares that the backups' kernels stored, and messages that left the primary in one copy per backup.
fn figures(reports: &[StatusReport]) -> (u64, u64) {
    let sum = |of: fn(&StatusReport) -> u64| reports.iter().map(of).sum();
    (
        sum(|report| kernel(report, "prepare", "stored")),
        sum(|report| report.driver.broadcasts_plain),
    )
}

#[test]
fn values_of_every_size_come_back_and_only_those_beyond_a_packet_go_around_the_kernel() {
    let Some(group) = Group::accelerated(3) else {
        return;
    };
    let client = group.connect(DEADLINE);
    let small = [
        1, 2, 3, 7, 8, 15, 16, 63, 64, 65, 100, 255, 256, 500, 1000, 1200,
    ];
    let around: Vec<usize> = (1300..=1500).collect();
    let large = [
        1600, 2000, 2900, 3000, 4096, 8192, 9000, 16384, 20_000, 32_000, 32_700,
    ];

    let (stored, plain) = figures(&group.wait_equal());
    round_trips(&client, &small);
    let (stored_small, plain_small) = figures(&group.wait_equal());
    // Two ops of each size, two backups.
    let expected = 4 * small.len() as u64;
    assert!(
        stored_small - stored >= expected * 9 / 10,
        "{} of {expected} stored\n{}",
        stored_small - stored,
        group.describe()
    );
    assert_eq!(
        plain_small,
        plain,
        "small ones leave once\n{}",
        group.describe()
    );

    round_trips(&client, &around);
    let (stored_around, plain_around) = figures(&group.wait_equal());
    // At least every other of them, the reads, is small; and some of the writes don't fit.
    assert!(stored_around - stored_small >= 2 * around.len() as u64 * 9 / 10);
    assert!(plain_around > plain_small, "{}", group.describe());

    round_trips(&client, &large);
    let (stored_large, plain_large) = figures(&group.wait_equal());
    let expected = large.len() as u64;
    assert!(
        plain_large - plain_around >= expected,
        "{} of {expected} went plainly\n{}",
        plain_large - plain_around,
        group.describe()
    );
    // R6: the reads between them went through the kernel, so each large one was followed by a way back.
    assert!(
        stored_large - stored_around >= expected,
        "{} stored\n{}",
        stored_large - stored_around,
        group.describe()
    );

    // One that no request may carry is refused before it is sent.
    let longest = vec![b'x'; OP_BYTES];
    let put = KvOp::Put {
        key: b"k",
        value: &longest,
    };
    let refused = smol::block_on(client.request(put.encode()));
    assert!(
        matches!(refused, Err(RequestError::TooLarge { .. })),
        "{refused:?}"
    );
    group.expect_kernel_commits(100);
}
