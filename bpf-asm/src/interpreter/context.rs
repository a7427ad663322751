//! `struct xdp_md` and `struct __sk_buff`: what can be read and written at which offset (linux/bpf.h, net/core/filter.c).

use super::fault::FaultKind;
use super::packet::{Buffer, SkbInput, XdpInput};
use super::value::{Pointer, Region, Value};

/// The context that a program was called with.
#[derive(Clone, Debug)]
pub(super) enum Context {
    Raw,
    Xdp(XdpInput),
    Skb(Box<SkbInput>),
}

impl Context {
    pub(super) fn load(&self, buffer: &Buffer, offset: i64, bytes: u8) -> Result<Value, FaultKind> {
        let value = match self {
            Context::Raw => None,
            Context::Xdp(xdp) => xdp_word(xdp, buffer, offset, bytes),
            Context::Skb(skb) => skb_field(skb, buffer, offset, bytes),
        };
        value.ok_or(FaultKind::ContextField {
            offset,
            bytes,
            how: "readable",
        })
    }

    pub(super) fn store(&mut self, offset: i64, bytes: u8, value: u64) -> Result<(), FaultKind> {
        let stored = match self {
            Context::Skb(skb) => store_skb(skb, offset, bytes, value),
            Context::Raw | Context::Xdp(_) => None,
        };
        stored.ok_or(FaultKind::ContextField {
            offset,
            bytes,
            how: "writable",
        })
    }
}

fn packet_pointers(buffer: &Buffer) -> [Value; 3] {
    let generation = buffer.generation;
    let pointer = |region, offset: usize| {
        Value::Pointer(Pointer {
            region,
            offset: offset as i64,
        })
    };
    [
        pointer(Region::Packet { generation }, buffer.data),
        pointer(Region::PacketEnd { generation }, buffer.end),
        pointer(Region::PacketMeta { generation }, buffer.meta),
    ]
}

fn xdp_word(xdp: &XdpInput, buffer: &Buffer, offset: i64, bytes: u8) -> Option<Value> {
    if bytes != 4 {
        return None;
    }
    let [data, end, meta] = packet_pointers(buffer);
    let scalar = |value: u32| Value::Scalar(u64::from(value));
    Some(match offset {
        0 => data,
        4 => end,
        8 => meta,
        12 => scalar(xdp.ingress_ifindex),
        16 => scalar(xdp.rx_queue_index),
        20 => scalar(xdp.egress_ifindex),
        _ => return None,
    })
}

fn skb_field(skb: &SkbInput, buffer: &Buffer, offset: i64, bytes: u8) -> Option<Value> {
    let [data, end, meta] = packet_pointers(buffer);
    match (offset, bytes) {
        (76, 4) => return Some(data),
        (80, 4) => return Some(end),
        (140, 4) => return Some(meta),
        (76..84 | 140..144, _) => return None,
        (152, 8) => return Some(Value::Scalar(skb.tstamp)),
        (184, 8) => return Some(Value::Scalar(skb.hwtstamp)),
        (152..160 | 184..192, _) => return None,
        // An 8-byte access within cb.
        (48..=60, 8) if offset % 8 == 0 => {
            let at = (offset as usize - 48) / 4;
            let word = |at: usize| u64::from(skb.cb[at]);
            return Some(Value::Scalar(word(at) | word(at + 1) << 32));
        }
        (_, 8) => return None,
        _ => {}
    }
    let ethertype = || {
        let frame = buffer.packet();
        let bytes = frame.get(12..14).unwrap_or(&[0, 0]);
        u16::from_be_bytes([bytes[0], bytes[1]])
    };
    let length = buffer.len() as u32;
    let aligned = offset & !3;
    let word = match aligned {
        0 => length,
        4 => skb.pkt_type,
        8 => skb.mark,
        12 => skb.queue_mapping,
        16 => u32::from(skb.protocol.unwrap_or_else(ethertype).to_be()),
        20 => u32::from(skb.vlan.is_some()),
        24 => skb.vlan.map_or(0, |(_, tci)| u32::from(tci)),
        28 => skb
            .vlan
            .map_or(0, |(protocol, _)| u32::from(protocol.to_be())),
        32 => skb.priority,
        36 => skb.ingress_ifindex,
        40 => skb.ifindex,
        44 => skb.tc_index,
        48..68 => skb.cb[(aligned as usize - 48) / 4],
        68 => skb.hash,
        72 => skb.tc_classid,
        84 => skb.napi_id,
        160 => length,
        164 => skb.gso_segs,
        176 => skb.gso_size,
        _ => return None,
    };
    // Narrow loads take a part of the word, as the host (little-endian) lays it out.
    let shift = 8 * (offset - aligned) as u32;
    let end = offset - aligned + i64::from(bytes);
    if end > 4 || offset % i64::from(bytes) != 0 {
        return None;
    }
    let mask = u32::MAX >> (32 - 8 * u32::from(bytes));
    Some(Value::Scalar(u64::from(word >> shift & mask)))
}

/// Writes a field that TC programs may write; `queue_mapping` and `tc_index` have 16 bits in the kernel.
fn store_skb(skb: &mut SkbInput, offset: i64, bytes: u8, value: u64) -> Option<()> {
    match (offset, bytes) {
        (152, 8) => {
            skb.tstamp = value;
            return Some(());
        }
        (48..=60, 8) if offset % 8 == 0 => {
            let at = (offset as usize - 48) / 4;
            skb.cb[at] = value as u32;
            skb.cb[at + 1] = (value >> 32) as u32;
            return Some(());
        }
        (48..68, 1 | 2 | 4) if offset % i64::from(bytes) == 0 => {
            let place = &mut skb.cb[(offset as usize - 48) / 4];
            let at = offset as usize % 4;
            let mut word = place.to_le_bytes();
            word[at..at + usize::from(bytes)].copy_from_slice(&value.to_le_bytes()[..bytes.into()]);
            *place = u32::from_le_bytes(word);
            return Some(());
        }
        (_, 4) => {}
        _ => return None,
    }
    let word = value as u32;
    match offset {
        8 => skb.mark = word,
        // The kernel keeps what doesn't fit out of it.
        12 if word < 0xffff => skb.queue_mapping = word,
        12 => {}
        32 => skb.priority = word,
        44 => skb.tc_index = word & 0xffff,
        72 => skb.tc_classid = word & 0xffff,
        _ => return None,
    }
    Some(())
}
