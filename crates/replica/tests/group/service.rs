//! A group that is well.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::Duration;

use electrode_apps::{KvOp, KvResult};
use electrode_replica::Accelerate;
use electrode_vr::Reply;
use electrode_wire::Key;

use crate::harness::{Client, Group, wait_until};

#[test]
fn a_new_group_commits_and_all_agree() {
    let group = Group::start();
    let mut client = Client::new(&group, 1);
    for number in 0..50_u32 {
        let op = number.to_le_bytes();
        assert_eq!(client.call(&op), op);
    }
    group.wait_equal(50);
    let primary = group.status(0).unwrap();
    assert_eq!(
        (primary.role.as_str(), primary.lag, primary.app.as_str()),
        ("primary", 0, "null")
    );
    assert_eq!(
        primary.accelerated.why.as_deref(),
        Some("--accelerate none")
    );
    assert!(
        primary
            .peers
            .iter()
            .all(|peer| peer.heard_ms.is_some_and(|ms| ms < 1000)),
        "{:?}",
        primary.peers
    );
}

#[test]
fn clients_at_the_same_time_are_each_served_once() {
    let group = Group::start();
    thread::scope(|scope| {
        for session in 1..=8 {
            let mut client = Client::new(&group, session);
            scope.spawn(move || {
                for number in 0..25_u64 {
                    let op = (session * 1000 + number).to_le_bytes();
                    assert_eq!(client.call(&op), op);
                }
            });
        }
    });
    group.wait_equal(8 * 25);
}

#[test]
fn a_backup_sends_clients_to_the_primary() {
    let group = Group::start();
    let mut client = Client::new(&group, 1);
    client.call(b"the session begins");
    let mut lost = Client::new(&group, 2).at(1);
    assert_eq!(lost.answer(b"x"), Reply::NotPrimary);
}

#[test]
fn an_operation_of_32_kib_is_fine_and_a_longer_one_is_named_too_large() {
    let group = Group::start();
    let mut client = Client::new(&group, 1);
    let op = vec![7; 32 << 10];
    assert_eq!(client.call(&op), op);
    let mut client = Client::new(&group, 2);
    assert!(
        matches!(client.answer(&vec![7; 40 << 10]), Reply::TooLarge { limit } if limit == 32 << 10)
    );
    group.wait_equal(1);
}

#[test]
fn a_group_over_ipv6_with_a_key_commits() {
    let mut group = Group::idle(3, true);
    group.key = Key([9; 16]);
    group.start_all();
    assert_eq!(Client::new(&group, 1).call(b"six"), b"six");
    group.wait_equal(1);
}

#[test]
fn five_replicas_commit() {
    let mut group = Group::idle(5, false);
    group.start_all();
    let mut client = Client::new(&group, 1);
    for _ in 0..20 {
        client.call(b"x");
    }
    group.wait_equal(20);
}

#[test]
fn one_replica_starts_a_group_by_itself_when_told_to() {
    let mut group = Group::idle(1, false);
    let options = electrode_replica::Options {
        bootstrap: true,
        ..group.options(0)
    };
    group.thread(options);
    group.wait_normal();
    assert_eq!(Client::new(&group, 1).call(b"alone"), b"alone");
}

#[test]
fn a_request_costs_the_primary_few_system_calls() {
    let group = Group::start();
    let mut client = Client::new(&group, 1);
    client.call(b"warm");
    let before = group.status(0).unwrap().driver;
    for _ in 0..300 {
        client.call(b"x");
    }
    let after = group.status(0).unwrap().driver;
    let requests = after.requests - before.requests;
    assert!(requests >= 300);
    // wait, receive, send a Prepare, wait, receive, send the reply; and the other ack: wait, receive. Heartbeats and the status
    // request are in the rest.
    let calls = after.syscalls - before.syscalls;
    assert!(
        calls < requests * 10,
        "{calls} system calls for {requests} requests"
    );
}

#[test]
fn busy_polling_serves_as_well() {
    let mut group = Group::idle(3, false);
    // One spinning thread is enough to show it, and all that a small machine can bear.
    let options = electrode_replica::Options {
        busy_poll: true,
        ..group.options(0)
    };
    group.thread(options);
    group.start_all();
    assert_eq!(Client::new(&group, 1).call(b"fast"), b"fast");
}

#[test]
fn an_idle_replica_is_small_has_one_thread_and_sleeps() {
    let mut group = Group::idle(3, false);
    let [pid, ..] = [0, 1, 2].map(|index| group.spawn(index));
    group.wait_normal();
    let mut client = Client::new(&group, 1);
    for _ in 0..100 {
        client.call(b"x");
    }
    let proc = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let status = proc("status");
    let field = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    assert!(field("VmRSS:") < 20 << 10, "{} KiB", field("VmRSS:"));
    // Two of them belong to the test framework that the child is wrapped in.
    assert!(field("Threads:") <= 2, "{} threads", field("Threads:"));
    let before = group.status(0).unwrap().driver.turns;
    thread::sleep(Duration::from_secs(1));
    let turns = group.status(0).unwrap().driver.turns - before;
    assert!(turns < 300, "{turns} turns in an idle second");
}

#[test]
fn the_metrics_page_has_the_status() {
    let mut group = Group::idle(3, false);
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let options = electrode_replica::Options {
        metrics: Some(address),
        ..group.options(1)
    };
    group.thread(options);
    group.start_all();
    Client::new(&group, 1).call(b"x");
    group.wait_equal(1);
    let page = get(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    for line in [
        "electrode_status{status=\"normal\"} 1",
        "electrode_commit 1",
        "electrode_primary 0",
    ] {
        assert!(
            page.lines().any(|other| other == line),
            "{line} is missing in\n{page}"
        );
    }
    assert!(get(address, "GET /other HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
    assert!(get(address, "POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
}

#[test]
fn idle_connections_to_the_metrics_page_hold_up_nobody() {
    let mut group = Group::idle(3, false);
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let options = electrode_replica::Options {
        metrics: Some(address),
        ..group.options(0)
    };
    group.thread(options);
    group.start_all();
    let _idle: Vec<TcpStream> = (0..20)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    assert_eq!(Client::new(&group, 1).call(b"x"), b"x");
    // The connections over the bound wait until the first ones ran out of time.
    wait_until("the page comes back", || {
        get(address, "GET /metrics HTTP/1.1\r\n\r\n").contains("200 OK")
    });
}

fn get(address: SocketAddr, request: &str) -> String {
    let mut connection = TcpStream::connect(address).unwrap();
    connection
        .set_read_timeout(Some(Duration::from_secs(15)))
        .unwrap();
    connection.write_all(request.as_bytes()).unwrap();
    let mut page = String::new();
    let _ = connection.read_to_string(&mut page);
    page
}

#[test]
fn without_an_interface_to_accelerate_the_replica_says_why_and_serves() {
    let mut group = Group::idle(3, false);
    let options = electrode_replica::Options {
        accelerate: Accelerate::Auto,
        ..group.options(0)
    };
    group.thread(options);
    group.start_all();
    assert_eq!(Client::new(&group, 1).call(b"x"), b"x");
    let accelerated = group.status(0).unwrap().accelerated;
    assert_eq!(accelerated.mode(), "off");
    let why = accelerated.why.unwrap();
    assert!(why.contains("loopback"), "{why}");
}

#[test]
fn a_service_manager_is_told_what_happens() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let heard = |wanted: &str| {
        let mut buffer = [0; 1024];
        loop {
            let length = manager
                .recv(&mut buffer)
                .unwrap_or_else(|error| panic!("waiting for {wanted}: {error}"));
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.trim_end() == wanted {
                return;
            }
        }
    };
    let mut group = Group::idle(3, false);
    let environment = [
        ("NOTIFY_SOCKET", path.to_str().unwrap()),
        ("WATCHDOG_USEC", "300000"),
    ];
    group.spawn_with(0, &environment);
    heard("READY=1");
    group.start_all();
    heard("STATUS=normal in view 0, primary");
    for _ in 0..3 {
        heard("WATCHDOG=1");
    }
}

#[test]
fn sigterm_is_obeyed() {
    let mut group = Group::idle(3, false);
    let options = electrode_replica::Options {
        handle_signals: true,
        ..group.options(0)
    };
    group.thread(options);
    group.start_all();
    assert!(group.terminate(0));
    assert!(group.status(0).is_none());
}

/// A group whose primaries answer reads by their lease, with the key-value store.
fn with_leases() -> Group {
    let mut group = Group::idle(3, false);
    for index in 0..3 {
        group.thread(electrode_replica::Options {
            app: electrode_replica::App::Kv,
            read_leases: true,
            ..group.options(index)
        });
    }
    group.wait_normal();
    group
}

#[test]
fn reads_see_what_was_written_before_and_need_no_op_of_their_own_while_the_lease_holds() {
    let group = with_leases();
    let mut client = Client::new(&group, 1);
    let get = KvOp::Get { key: b"key" }.encode();
    for round in 0..200_u32 {
        let value = round.to_le_bytes();
        let put = KvOp::Put {
            key: b"key",
            value: &value,
        };
        client.call(&put.encode());
        let result = client.read(&get);
        let expected = KvResult::Value(Some(&value[..]));
        assert_eq!(KvResult::decode(&result), Ok(expected));
    }
    // A busy machine may let some leases run out.
    wait_until("some of 200 reads were answered by the lease", || {
        group
            .status(0)
            .is_some_and(|report| report.op >= 200 && report.op < 400)
    });
    let refused = {
        let op = KvOp::Delete { key: b"key" }.encode();
        let mut reader = Client::new(&group, 2);
        reader.as_read(7);
        reader.answer(&op)
    };
    assert_eq!(refused, Reply::NotRead);
}

#[test]
fn reads_after_a_change_of_primary_see_what_the_old_one_acknowledged() {
    let mut group = with_leases();
    let mut client = Client::new(&group, 1);
    let get = KvOp::Get { key: b"key" }.encode();
    for round in 0..3_u8 {
        let put = KvOp::Put {
            key: b"key",
            value: &[round],
        };
        client.call(&put.encode());
        let primary = (0..3)
            .find(|index| {
                group
                    .status(*index)
                    .is_some_and(|report| report.status == "normal" && report.role == "primary")
            })
            .expect("somebody leads");
        group.kill(primary);
        let value = [round];
        let expected = KvResult::Value(Some(&value));
        assert_eq!(KvResult::decode(&client.read(&get)), Ok(expected));
        group.thread(electrode_replica::Options {
            app: electrode_replica::App::Kv,
            read_leases: true,
            ..group.options(primary)
        });
        group.wait_normal();
    }
}
