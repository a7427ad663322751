//! What the fuzz target does with its bytes: the same here and in the bounded test of `tests/round_trip.rs`.

use electrode_wire::{HEADER_BYTES, Key, check, encode};

/// The key of all messages here.
const KEY: Key = Key(*b"the group's key!");

/// Bytes are refused, or a message that is encoded to what decodes to the same. First as they are; then with magic, version, length
/// and check put right, so that what is behind those is looked at as well.
pub(crate) fn decode(data: &[u8]) {
    whole(data);
    let _ = electrode_wire::decode_reply(data);
    if data.len() < HEADER_BYTES {
        return;
    }
    let mut dressed = data.to_vec();
    dressed[..4].copy_from_slice(b"ELCT");
    dressed[4] = 1;
    let body = u32::try_from(data.len() - HEADER_BYTES).unwrap_or(u32::MAX);
    dressed[72..76].copy_from_slice(&body.to_le_bytes());
    // Clients' messages are signed without a key.
    for key in [KEY, Key::UNKEYED] {
        let right = check(&key, &dressed);
        dressed[8..16].copy_from_slice(&right.to_le_bytes());
        whole(&dressed);
        let _ = electrode_wire::decode_reply(&dressed);
    }
}

fn whole(data: &[u8]) {
    let Ok((envelope, packet)) = electrode_wire::decode(data, &KEY) else {
        return;
    };
    let mut again = Vec::new();
    encode(&envelope, &KEY, &packet, &mut again);
    assert_eq!(
        electrode_wire::decode(&again, &KEY),
        Ok((envelope, packet)),
        "{data:02x?}"
    );
}
