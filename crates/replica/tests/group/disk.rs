//! Groups whose log is on disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use electrode_lab::root_or_skip;
use electrode_replica::{DiskError, Options, RunError, run};
use electrode_vr::{Durability, Reply};

use crate::harness::{Client, Group, wait_until};

/// `n` replicas on disk, in processes, normal.
fn on_disk(n: usize) -> Group {
    let mut group = Group::idle(n, false);
    group.durability = Durability::Disk;
    group.checkpoint_ops = 64;
    for index in 0..n {
        group.spawn(index);
    }
    group.wait_normal();
    group
}

fn kill_all(group: &mut Group) {
    for index in 0..group.addresses.len() {
        group.kill(index);
    }
}

fn spawn_all(group: &mut Group) {
    for index in 0..group.addresses.len() {
        group.spawn(index);
    }
}

/// The files of a replica's log.
fn log_files(group: &Group, index: usize) -> Vec<PathBuf> {
    let directory = group.state_dir(index).join("log");
    let entries = fs::read_dir(directory).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn a_power_cut_of_all_replicas_loses_nothing_that_was_acknowledged() {
    let mut group = on_disk(3);
    let mut client = Client::new(&group, 1);
    let mut done: u64 = 0;
    for round in 0..3 {
        // The power goes while requests are under way; their client asks again until they are done, once each.
        let caller = std::thread::spawn(move || {
            for _ in 0..150 {
                client.call(b"op");
            }
            client
        });
        wait_until("some are done", || {
            group
                .status(0)
                .is_some_and(|report| report.commit >= done + 75)
                || caller.is_finished()
        });
        kill_all(&mut group);
        spawn_all(&mut group);
        client = caller.join().unwrap();
        done += 150;
        wait_until("every replica normal, with the same log", || {
            let reports: Vec<_> = (0..3).filter_map(|index| group.status(index)).collect();
            reports.len() == 3
                && reports.iter().all(|report| {
                    report.status == "normal"
                        && report.commit == report.op
                        && report.log_digest == reports[0].log_digest
                        && report.state_digest == reports[0].state_digest
                })
        });
        let report = group.status(0).unwrap();
        assert_eq!(report.durability, "disk");
        let executed = u64::from_str_radix(&report.state_digest, 16).unwrap();
        assert_eq!(executed, done, "round {round}");
    }
    let report = group.status(0).unwrap();
    assert!(report.checkpoint >= 384, "{report:?}");
    let files = log_files(&group, 0);
    assert!(
        files.len() <= 5,
        "what a checkpoint covers is trimmed: {files:?}"
    );
}

#[test]
fn a_group_of_one_comes_back_from_its_disk() {
    let mut group = on_disk(1);
    let mut client = Client::new(&group, 1);
    for round in 1..=3 {
        for _ in 0..50 {
            client.call(b"alone");
        }
        group.kill(0);
        group.spawn(0);
        group.wait_equal(round * 50);
    }
}

#[test]
fn one_of_three_comes_back_without_the_others_help() {
    let mut group = on_disk(3);
    let mut client = Client::new(&group, 1);
    for _ in 0..100 {
        client.call(b"op");
    }
    group.wait_equal(100);
    kill_all(&mut group);
    group.spawn(2);
    // It knows all there was, though nobody is there who could have told it.
    wait_until("the log is there", || {
        group.status(2).is_some_and(|report| {
            report.op == 100 && report.durable == Some(100) && report.status != "recovering"
        })
    });
    group.spawn(0);
    client.call(b"two of three");
    group.spawn(1);
    group.wait_equal(101);
}

/// A record in a file of the log, as `crates/journal/src/record.rs` lays it out.
struct Record {
    start: usize,
    end: usize,
    /// Bytes of the file that were durable when it was written.
    durable: usize,
}

fn records(bytes: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    let mut start = 0;
    while let Some(front) = bytes.get(start..start + 24) {
        let word = |at: usize| u64::from_le_bytes(front[at..at + 8].try_into().unwrap());
        let number = |at| usize::try_from(word(at)).unwrap();
        let end = start + 32 + number(8).next_multiple_of(8);
        records.push(Record {
            start,
            end,
            durable: number(16),
        });
        start = end;
    }
    records
}

/// Many ops at once, until some of them were synced together by this replica and another one later: the number of ops, its
/// last file, and the first record of those.
fn synced_together(group: &Group, index: usize) -> (u64, PathBuf, Record) {
    let mut clients: Vec<Client> = (1..=8).map(|session| Client::new(group, session)).collect();
    let mut done = 0;
    let mut found = None;
    wait_until("some are synced together", || {
        std::thread::scope(|scope| {
            for client in &mut clients {
                scope.spawn(|| (0..20).for_each(|_| drop(client.call(b"op"))));
            }
        });
        done += 8 * 20;
        group.wait_equal(done);
        let file = log_files(group, index).pop().unwrap();
        let records = records(&fs::read(&file).unwrap());
        let first = records.windows(2).position(|pair| {
            pair[0].durable == pair[0].start
                && pair[1].durable == pair[0].start
                && records
                    .last()
                    .is_some_and(|last| last.durable > pair[0].start)
        });
        found = first
            .and_then(|at| records.into_iter().nth(at))
            .map(|record| (file, record));
        found.is_some()
    });
    let (file, record) = found.unwrap();
    (done, file, record)
}

/// Changes a bit, and returns what is there now.
fn damage(file: &Path, at: usize) -> Vec<u8> {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1;
    fs::write(file, &bytes).unwrap();
    bytes
}

#[test]
fn a_damaged_log_is_set_aside_and_comes_from_the_others() {
    let mut group = on_disk(3);
    // The record behind the damaged one was synced with it and knows nothing; a later one does.
    let (done, file, record) = synced_together(&group, 1);
    group.kill(1);
    damage(&file, record.end - 9);
    group.spawn(1);
    Client::new(&group, 9).call(b"after");
    group.wait_equal(done + 1);
    assert!(group.state_dir(1).join("log.damaged-1").is_dir());
    // What it got is on its own disk now.
    kill_all(&mut group);
    spawn_all(&mut group);
    group.wait_equal(done + 1);
}

#[test]
fn a_damaged_log_of_a_group_of_one_is_refused() {
    let mut group = on_disk(1);
    let (done, file, record) = synced_together(&group, 0);
    group.kill(0);
    refused_with_damage(&group, &file, record.end - 9, record.start);
    // It goes on, and is stopped in order: the mark speaks for the last op then.
    group.thread(group.options(0));
    group.wait_equal(done);
    Client::new(&group, 9).call(b"the last");
    group.kill(0);
    let file = log_files(&group, 0).pop().unwrap();
    let last = records(&fs::read(&file).unwrap()).pop().unwrap();
    refused_with_damage(&group, &file, last.end - 9, last.start);
    group.spawn(0);
    group.wait_equal(done + 1);
}

/// A group of one doesn't start when this byte is changed, and says which record it was and what can be done. The byte is
/// as before when this returns.
fn refused_with_damage(group: &Group, file: &Path, at: usize, record: usize) {
    let bytes = damage(file, at);
    let error = run(group.options(0)).expect_err("it must not start");
    assert!(
        matches!(error, RunError::Disk(DiskError::Alone { .. })),
        "{error}"
    );
    let text = error.to_string();
    for part in [
        &format!("{}, byte {record}:", file.display()),
        "Restore the directory from a copy",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(fs::read(file).unwrap(), bytes, "nothing was changed");
    damage(file, at);
}

#[test]
fn a_log_is_neither_ignored_in_memory_mode_nor_used_without_its_promise() {
    let mut group = on_disk(3);
    Client::new(&group, 1).call(b"op");
    group.kill(1);
    let in_memory = Options {
        durability: Durability::Memory,
        ..group.options(1)
    };
    let error = run(in_memory).expect_err("it must not start");
    assert!(
        matches!(error, RunError::Disk(DiskError::InMemory(_))),
        "{error}"
    );
    let promise = group.state_dir(1).join("promise");
    let text = fs::read(&promise).unwrap();
    fs::remove_file(&promise).unwrap();
    let error = run(group.options(1)).expect_err("it must not start");
    assert!(
        matches!(error, RunError::Disk(DiskError::NoPromise(_))),
        "{error}"
    );
    fs::write(&promise, text).unwrap();
    group.spawn(1);
    group.wait_equal(1);
}

#[test]
fn a_group_of_one_whose_log_is_gone_says_so_instead_of_waiting_for_nobody() {
    let mut group = on_disk(1);
    Client::new(&group, 1).call(b"op");
    group.kill(0);
    fs::remove_dir_all(group.state_dir(0).join("log")).unwrap();
    let error = run(group.options(0)).expect_err("it must not start");
    assert!(
        matches!(error, RunError::Disk(DiskError::NoLog(_))),
        "{error}"
    );
}

#[test]
fn a_memory_group_may_become_one_on_disk() {
    let mut group = Group::idle(3, false);
    for index in 0..3 {
        group.spawn(index);
    }
    group.wait_normal();
    let mut client = Client::new(&group, 1);
    client.call(b"in memory");
    group.durability = Durability::Disk;
    for (round, index) in [1, 2, 0].into_iter().enumerate() {
        group.kill(index);
        group.spawn(index);
        client.call(b"op");
        group.wait_equal(round as u64 + 2);
    }
    kill_all(&mut group);
    spawn_all(&mut group);
    group.wait_equal(4);
}

/// A small file system, unmounted when it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(path: &Path, bytes: u32) -> Mounted {
        fs::create_dir_all(path).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(path)
            .status()
            .unwrap();
        assert!(mounted.success());
        Mounted(path.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_stops_that_replica_with_a_reason_and_the_others_go_on() {
    if !root_or_skip("a small file system") {
        return;
    }
    let mut group = Group::idle(3, false);
    group.durability = Durability::Disk;
    let small = Mounted::new(&group.state_dir(2), 128 << 10);
    for index in 0..2 {
        group.spawn(index);
    }
    let options = group.options(2);
    let replica = std::thread::spawn(move || run(options));
    group.wait_normal();
    let mut client = Client::new(&group, 1);
    let op = vec![7; 1000];
    for _ in 0..400 {
        client.call(&op);
    }
    let error = replica.join().unwrap().expect_err("its disk is full");
    let text = error.to_string();
    assert!(
        text.contains("log/log-") && text.contains("no room left"),
        "{text}"
    );
    assert!(matches!(
        Client::new(&group, 2).at(2).attempt(b"x"),
        Err(_) | Ok(Reply::NotPrimary)
    ));
    // Nothing that it acknowledged is lost: with more room it goes on where it was.
    let log = group.state_dir(2).join("log");
    let keep = tempfile::tempdir().unwrap();
    let copied = Command::new("cp")
        .arg("-a")
        .arg(log.parent().unwrap().join("."))
        .arg(keep.path())
        .status();
    assert!(copied.unwrap().success());
    drop(small);
    let copied = Command::new("cp")
        .arg("-a")
        .arg(keep.path().join("."))
        .arg(group.state_dir(2))
        .status();
    assert!(copied.unwrap().success());
    group.spawn(2);
    group.wait_equal(400);
}
