//! One packet of every kind, as the first released version sends it. A difference here is another protocol version.
//!
//! `GOLDEN=write cargo test -p electrode-wire --test golden` writes the file anew.

use std::fmt::Write as _;
use std::path::Path;

use electrode_vr::{
    ClientId, Digest, Entry, GroupId, Message, Nonce, OpNumber, Prepare, Reply, RequestNumber, View,
};
use electrode_wire::{CLIENT, Envelope, FLAG_BROADCAST, Key, Packet, decode, encode, peek};

const KEY: Key = Key([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);

#[test]
fn every_kind_has_the_bytes_of_version_1() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/version_1.hex");
    let mut text = String::new();
    for (name, envelope, packet) in packets() {
        let mut bytes = Vec::new();
        encode(&envelope, &KEY, &packet, &mut bytes);
        assert_eq!(decode(&bytes, &KEY), Ok((envelope, packet)), "{name}");
        writeln!(text, "{name} {}", hex(&bytes)).unwrap();
    }
    if std::env::var_os("GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(&file, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&file).unwrap();
    for (ours, theirs) in text.lines().zip(golden.lines()) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(text.lines().count(), golden.lines().count());
}

#[test]
fn no_kind_is_missing() {
    let mut kinds: Vec<u8> = Vec::new();
    for (_, envelope, packet) in packets() {
        let mut bytes = Vec::new();
        encode(&envelope, &KEY, &packet, &mut bytes);
        kinds.push(peek(&bytes).unwrap().kind);
    }
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, (1..=21).collect::<Vec<u8>>());
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn packets() -> Vec<(&'static str, Envelope, Packet)> {
    let view = View(0x0102_0304);
    let nonce = Nonce(0x1122_3344_5566_7788);
    let op = OpNumber(1000);
    let commit = OpNumber(990);
    let digest = Digest(0xd1d1_d1d1_d1d1_d1d1);
    let group = GroupId(0xabcd_ef01_2345_6789);
    let client = ClientId(0xc11e_c11e_c11e_c11e);
    let request = RequestNumber(77);
    let entry = |op: &str| Entry {
        client,
        request,
        op: op.as_bytes().into(),
    };
    let reply = |reply| Packet::Reply {
        view,
        client,
        request,
        reply,
    };
    let message = Packet::Message;
    let from_client = [
        (
            "request",
            Packet::Request {
                client,
                request,
                op: b"put k v".as_slice().into(),
            },
        ),
        ("status-request", Packet::StatusRequest { nonce }),
    ];
    let from_replica = [
        ("reply-done", reply(Reply::Done(b"ok".as_slice().into()))),
        ("reply-not-primary", reply(Reply::NotPrimary)),
        (
            "reply-busy",
            reply(Reply::Busy {
                retry_after_ms: 300,
            }),
        ),
        ("reply-no-session", reply(Reply::NoSession)),
        ("reply-too-large", reply(Reply::TooLarge { limit: 32768 })),
        ("reply-unavailable", reply(Reply::Unavailable)),
        ("reply-not-read", reply(Reply::NotRead)),
        (
            "prepare",
            message(Message::Prepare(Prepare {
                view,
                first: OpNumber(998),
                commit,
                entries: vec![entry("eight by"), entry(""), entry("hello")],
            })),
        ),
        (
            "prepare-ok",
            message(Message::PrepareOk {
                view,
                op,
                last_op: OpNumber(1003),
            }),
        ),
        ("commit", message(Message::Commit { view, commit })),
        ("pre-vote", message(Message::PreVote { view })),
        ("pre-vote-ok", message(Message::PreVoteOk { view })),
        (
            "start-view-change",
            message(Message::StartViewChange { view }),
        ),
        (
            "do-view-change",
            message(Message::DoViewChange {
                view,
                last_normal: View(5),
                op,
                commit,
                digest,
            }),
        ),
        (
            "start-view",
            message(Message::StartView {
                view,
                op,
                commit,
                digest,
            }),
        ),
        (
            "get-state",
            message(Message::GetState {
                view,
                nonce,
                after: commit,
            }),
        ),
        (
            "new-state",
            message(Message::NewState {
                view,
                nonce,
                after: OpNumber(991),
                digest_after: Digest(3),
                entries: vec![entry("hello"), entry("world")],
                op,
                digest,
                commit,
            }),
        ),
        (
            "get-checkpoint",
            message(Message::GetCheckpoint {
                view,
                nonce,
                op,
                offset: 65536,
            }),
        ),
        (
            "checkpoint-chunk",
            message(Message::CheckpointChunk {
                view,
                nonce,
                op,
                log_digest: Digest(4),
                digest,
                total: 100_000,
                offset: 65536,
                bytes: b"chunk".to_vec(),
            }),
        ),
        (
            "recovery",
            message(Message::Recovery {
                nonce,
                promised: view,
            }),
        ),
        (
            "recovery-response-primary",
            message(Message::RecoveryResponse {
                nonce,
                view,
                primary: Some((op, commit, digest)),
            }),
        ),
        (
            "recovery-response-backup",
            message(Message::RecoveryResponse {
                nonce,
                view,
                primary: None,
            }),
        ),
        (
            "hello",
            message(Message::Hello {
                nonce,
                group: GroupId(0),
            }),
        ),
        ("hello-ok", message(Message::HelloOk { nonce, group })),
        ("bootstrap", message(Message::Bootstrap { nonce, group })),
        (
            "status-reply",
            Packet::StatusReply {
                nonce,
                body: b"{}".to_vec(),
            },
        ),
    ];
    let envelope = |sender, flags| Envelope {
        group,
        epoch: 0,
        sender,
        flags,
    };
    let clients = from_client
        .into_iter()
        .map(|(name, packet)| (name, envelope(CLIENT, 0), packet));
    let replicas = from_replica.into_iter().map(|(name, packet)| {
        let flags = if name == "prepare" { FLAG_BROADCAST } else { 0 };
        (name, envelope(2, flags), packet)
    });
    clients.chain(replicas).collect()
}
