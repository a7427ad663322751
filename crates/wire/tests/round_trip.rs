//! `decode` undoes `encode`, and takes nothing else.

#[path = "../fuzz/body.rs"]
mod body;

use electrode_vr::{
    ClientId, Digest, Entry, GroupId, Message, Nonce, OpNumber, Prepare, Reply, RequestNumber, View,
};
use electrode_wire::{
    CLIENT, DecodeError, Envelope, HEADER_BYTES, Key, Kind, MAX_DATAGRAM, Packet, check, decode,
    decode_reply, encode, peek,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn op_number() -> impl Strategy<Value = OpNumber> {
    prop_oneof![0..100u64, 0..OpNumber::LIMIT, Just(OpNumber::LIMIT - 1)].prop_map(OpNumber)
}

fn entries(most: usize) -> impl Strategy<Value = Vec<Entry>> {
    let entry = (any::<u64>(), any::<u64>(), vec(any::<u8>(), 0..40));
    let entry = entry.prop_map(|(client, request, op)| Entry {
        client: ClientId(client),
        request: RequestNumber(request),
        op: op.into(),
    });
    vec(entry, 0..most)
}

fn message() -> impl Strategy<Value = Message> {
    let view = || any::<u64>().prop_map(View);
    let nonce = || any::<u64>().prop_map(Nonce);
    let group = || any::<u64>().prop_map(GroupId);
    let digest = || any::<u64>().prop_map(Digest);
    let op = op_number;
    let prepare = (view(), 1..OpNumber::LIMIT - 100, op(), entries(9)).prop_filter_map(
        "a Prepare is never empty",
        |(view, first, commit, entries)| {
            let first = OpNumber(first);
            (!entries.is_empty()).then_some(Message::Prepare(Prepare {
                view,
                first,
                commit,
                entries,
            }))
        },
    );
    let prepare_ok = (view(), op(), op()).prop_map(|(view, a, b)| Message::PrepareOk {
        view,
        op: a.min(b),
        last_op: a.max(b),
    });
    let new_state = (
        (view(), nonce(), 0..OpNumber::LIMIT - 100, 0..50u64),
        (digest(), entries(9), digest(), op()),
    );
    let new_state = new_state.prop_map(
        |((view, nonce, after, more), (digest_after, entries, digest, commit))| Message::NewState {
            op: OpNumber(after + entries.len() as u64 + more),
            after: OpNumber(after),
            view,
            nonce,
            digest_after,
            entries,
            digest,
            commit,
        },
    );
    let chunk = (
        (view(), nonce(), op(), digest()),
        (
            digest(),
            any::<u64>(),
            any::<u64>(),
            vec(any::<u8>(), 0..60),
        ),
    );
    let chunk = chunk.prop_map(
        |((view, nonce, op, log_digest), (digest, total, offset, bytes))| {
            Message::CheckpointChunk {
                view,
                nonce,
                op,
                log_digest,
                digest,
                total,
                offset,
                bytes,
            }
        },
    );
    prop_oneof![
        4 => prepare,
        2 => prepare_ok,
        1 => (view(), op()).prop_map(|(view, commit)| Message::Commit { view, commit }),
        1 => view().prop_map(|view| Message::PreVote { view }),
        1 => view().prop_map(|view| Message::PreVoteOk { view }),
        1 => view().prop_map(|view| Message::StartViewChange { view }),
        1 => (view(), view(), op(), op(), digest()).prop_map(
            |(view, last_normal, op, commit, digest)| Message::DoViewChange {
                view, last_normal, op, commit, digest
            }),
        1 => (view(), op(), op(), digest()).prop_map(
            |(view, op, commit, digest)| Message::StartView { view, op, commit, digest }),
        1 => (view(), nonce(), op()).prop_map(
            |(view, nonce, after)| Message::GetState { view, nonce, after }),
        3 => new_state,
        2 => chunk,
        1 => (view(), nonce(), op(), any::<u64>()).prop_map(
            |(view, nonce, op, offset)| Message::GetCheckpoint { view, nonce, op, offset }),
        1 => (nonce(), view()).prop_map(|(nonce, promised)| Message::Recovery { nonce, promised }),
        1 => (nonce(), view(), option::of((op(), op(), digest()))).prop_map(
            |(nonce, view, primary)| Message::RecoveryResponse { nonce, view, primary }),
        1 => (nonce(), group()).prop_map(|(nonce, group)| Message::Hello { nonce, group }),
        1 => (nonce(), group()).prop_map(|(nonce, group)| Message::HelloOk { nonce, group }),
        1 => (nonce(), group()).prop_map(|(nonce, group)| Message::Bootstrap { nonce, group }),
    ]
}

fn packet() -> impl Strategy<Value = Packet> {
    let bytes = || vec(any::<u8>(), 0..60);
    let reply = prop_oneof![
        bytes().prop_map(|result| Reply::Done(result.into())),
        Just(Reply::NotPrimary),
        any::<u32>().prop_map(|retry_after_ms| Reply::Busy { retry_after_ms }),
        Just(Reply::NoSession),
        any::<u32>().prop_map(|limit| Reply::TooLarge { limit }),
        Just(Reply::Unavailable),
        Just(Reply::NotRead),
    ];
    prop_oneof![
        6 => message().prop_map(Packet::Message),
        1 => (any::<u64>(), any::<u64>(), bytes()).prop_map(|(client, request, op)| {
            let (client, request) = (ClientId(client), RequestNumber(request));
            Packet::Request { client, request, op: op.into() }
        }),
        1 => (any::<u64>(), any::<u64>(), any::<u64>(), reply).prop_map(
            |(view, client, request, reply)| {
                let (client, request) = (ClientId(client), RequestNumber(request));
                Packet::Reply { view: View(view), client, request, reply }
            }),
        1 => any::<u64>().prop_map(|nonce| Packet::StatusRequest { nonce: Nonce(nonce) }),
        1 => (any::<u64>(), bytes()).prop_map(|(nonce, body)| {
            Packet::StatusReply { nonce: Nonce(nonce), body }
        }),
    ]
}

fn from_client(packet: &Packet) -> bool {
    matches!(
        packet,
        Packet::Request { .. } | Packet::StatusRequest { .. }
    )
}

fn sent() -> impl Strategy<Value = (Envelope, Packet)> {
    (packet(), any::<u64>(), any::<u32>(), 0..15u8, 0..2u8).prop_map(
        |(packet, group, epoch, sender, flags)| {
            let sender = if from_client(&packet) { CLIENT } else { sender };
            (
                Envelope {
                    group: GroupId(group),
                    epoch,
                    sender,
                    flags,
                },
                packet,
            )
        },
    )
}

const KEY: Key = Key(*b"a group's secret");

proptest! {
    #[test]
    fn decode_undoes_encode((envelope, packet) in sent()) {
        let mut bytes = vec![1, 2, 3];
        encode(&envelope, &KEY, &packet, &mut bytes);
        prop_assert_eq!(usize::try_from(peek(&bytes).unwrap().length.get()), Ok(bytes.len() - HEADER_BYTES));
        prop_assert_eq!(decode(&bytes, &KEY), Ok((envelope, packet.clone())));
        if let Packet::Reply { view, client, request, reply } = packet {
            let seen = decode_reply(&bytes).unwrap();
            prop_assert_eq!((seen.envelope, seen.view), (envelope, view));
            prop_assert_eq!((seen.client, seen.request), (client, request));
            prop_assert_eq!(Reply::from(seen.reply), reply);
        } else {
            prop_assert_eq!(decode_reply(&bytes), Err(DecodeError::NotAReply));
        }
    }

    #[test]
    fn a_single_flipped_bit_is_never_taken((envelope, packet) in sent(), at in any::<proptest::sample::Index>(), bit in 0..8u8) {
        let mut bytes = Vec::new();
        encode(&envelope, &KEY, &packet, &mut bytes);
        let at = at.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        prop_assert!(decode(&bytes, &KEY).is_err(), "byte {} bit {}", at, bit);
    }

    #[test]
    fn a_cut_or_longer_message_is_refused((envelope, packet) in sent(), cut in 1..90usize) {
        let mut bytes = Vec::new();
        encode(&envelope, &KEY, &packet, &mut bytes);
        let longer = [bytes.as_slice(), &[0; 90][..cut]].concat();
        let is_wrong_length = matches!(decode(&longer, &KEY), Err(DecodeError::WrongLength { .. }));
        prop_assert!(is_wrong_length);
        bytes.truncate(bytes.len().saturating_sub(cut));
        prop_assert!(decode(&bytes, &KEY).is_err());
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in vec(any::<u8>(), 0..300)) {
        prop_assert!(decode(&bytes, &KEY).is_err());
        prop_assert!(decode_reply(&bytes).is_err());
    }

    /// The fuzz target's body, on bytes whose header is right, so that fields and body themselves are looked at.
    #[test]
    fn any_fields_and_body_are_read_without_a_panic(
        mut bytes in vec(any::<u8>(), HEADER_BYTES..300),
        kind in 1..=21u8,
        small in vec(0..6u8, 4),
        sender in prop_oneof![Just(CLIENT), 0..15u8],
    ) {
        dress(&mut bytes, kind, sender);
        // Small op numbers, or nearly every message would be refused for them.
        for (field, value) in [24, 32, 40, 48].into_iter().zip(small) {
            bytes[field..field + 8].copy_from_slice(&u64::from(value).to_le_bytes());
        }
        body::decode(&bytes);
    }
}

/// Makes the bytes a message whose frame is right.
fn dress(bytes: &mut [u8], kind: u8, sender: u8) {
    bytes[..8].copy_from_slice(&[b'E', b'L', b'C', b'T', 1, kind, sender, 0]);
    let length = u32::try_from(bytes.len() - HEADER_BYTES).unwrap();
    bytes[72..76].copy_from_slice(&length.to_le_bytes());
}

fn sign(bytes: &mut [u8]) {
    let key = Kind::try_from(bytes[5]).map_or(KEY, |kind| KEY.for_kind(kind));
    let value = check(&key, bytes);
    bytes[8..16].copy_from_slice(&value.to_le_bytes());
}

fn encoded(sender: u8, packet: &Packet) -> Vec<u8> {
    let envelope = Envelope {
        group: GroupId(7),
        epoch: 0,
        sender,
        flags: 0,
    };
    let mut bytes = Vec::new();
    encode(&envelope, &KEY, packet, &mut bytes);
    bytes
}

fn a_prepare() -> Vec<u8> {
    let entry = Entry {
        client: ClientId(1),
        request: RequestNumber(2),
        op: b"op".as_slice().into(),
    };
    encoded(
        0,
        &Packet::Message(Message::Prepare(Prepare {
            view: View(3),
            first: OpNumber(4),
            commit: OpNumber(3),
            entries: vec![entry.clone(), entry],
        })),
    )
}

/// Puts a number into a header field of a Prepare and signs again.
fn with_field(at: usize, value: u64) -> Result<(Envelope, Packet), DecodeError> {
    let mut bytes = a_prepare();
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    sign(&mut bytes);
    decode(&bytes, &KEY)
}

#[test]
fn a_prepare_with_contradicting_numbers_is_refused() {
    const OP: usize = 32;
    const FIRST: usize = 40;
    assert!(with_field(OP, 5).is_ok());
    assert_eq!(with_field(FIRST, 0), Err(DecodeError::OpNumbers));
    assert_eq!(with_field(FIRST, 6), Err(DecodeError::OpNumbers));
    assert_eq!(with_field(OP, 1 << 48), Err(DecodeError::OpNumbers));
    assert_eq!(
        with_field(OP, 4),
        Err(DecodeError::Entries("bytes follow the last entry"))
    );
    assert_eq!(
        with_field(OP, 6),
        Err(DecodeError::Entries(
            "more entries than the body has room for"
        ))
    );
    assert_eq!(
        with_field(OP, (1 << 48) - 1),
        Err(DecodeError::Entries(
            "more entries than the body has room for"
        ))
    );
}

#[test]
fn every_single_flipped_bit_of_a_prepare_is_refused() {
    let bytes = a_prepare();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&damaged, &KEY).is_err(), "bit {bit}");
    }
}

#[test]
fn a_replicas_message_under_another_key_is_refused() {
    assert_eq!(
        decode(&a_prepare(), &Key::UNKEYED),
        Err(DecodeError::WrongCheck)
    );
    assert_eq!(
        decode(&a_prepare(), &Key([0xee; 16])),
        Err(DecodeError::WrongCheck)
    );
}

#[test]
fn clients_need_no_key() {
    let request = Packet::Request {
        client: ClientId(1),
        request: RequestNumber(1),
        op: b"x".as_slice().into(),
    };
    let bytes = encoded(CLIENT, &request);
    assert!(decode(&bytes, &Key::UNKEYED).is_ok());
    assert!(decode(&bytes, &KEY).is_ok());
}

#[test]
fn a_client_cannot_speak_as_a_replica_nor_a_replica_as_a_client() {
    let request = Packet::Request {
        client: ClientId(1),
        request: RequestNumber(1),
        op: [].as_slice().into(),
    };
    assert_eq!(
        decode(&encoded(0, &request), &KEY),
        Err(DecodeError::WrongSender(0))
    );
    let commit = Packet::Message(Message::Commit {
        view: View(0),
        commit: OpNumber(0),
    });
    assert_eq!(
        decode(&encoded(CLIENT, &commit), &KEY),
        Err(DecodeError::WrongSender(CLIENT))
    );
    assert_eq!(
        decode(&encoded(15, &commit), &KEY),
        Err(DecodeError::WrongSender(15))
    );
}

#[test]
fn what_is_wrong_is_said_in_words() {
    let bytes = a_prepare();
    let wrong = |at: usize, value: u8| {
        let mut damaged = bytes.clone();
        damaged[at] = value;
        decode(&damaged, &KEY).unwrap_err().to_string()
    };
    assert_eq!(wrong(4, 2), "protocol version is 2, expected 1");
    assert_eq!(wrong(5, 99), "unknown message kind 99");
    assert_eq!(wrong(0, b'X'), "magic is 0x54434c58, expected 0x54434c45");
    assert_eq!(wrong(60, 9), "check doesn't match: damaged, or another key");
    assert_eq!(
        decode(&[], &KEY).unwrap_err().to_string(),
        "0 bytes are too few for a header"
    );
    assert_eq!(
        decode(&vec![0; MAX_DATAGRAM + 1], &KEY),
        Err(DecodeError::TooLong(MAX_DATAGRAM + 1))
    );
}
