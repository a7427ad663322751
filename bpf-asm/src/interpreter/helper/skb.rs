//! Helpers of TC programs that read, write and change socket buffers.

use super::{Helper, Returned};
use crate::interpreter::cpu::Cpu;
use crate::interpreter::map::Errno;
use crate::interpreter::packet::SkbInput;
use crate::interpreter::state::State;

const ETH_HLEN: usize = 14;
const VLAN_HLEN: usize = 4;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const ETH_P_8021Q: u16 = 0x8100;
const ETH_P_8021AD: u16 = 0x88a8;
/// `PACKET_OTHERHOST`, the last type that may be changed.
const PACKET_OTHERHOST: u32 = 3;
/// `EACCES`, which is what there is where no sum was verified.
const EACCES: Errno = Errno(13);

const STORE_BYTES: u32 = 9;
const LOAD_BYTES_RELATIVE: u32 = 68;

impl Cpu {
    /// `bpf_skb_store_bytes`, `bpf_skb_load_bytes`, `bpf_skb_load_bytes_relative`.
    pub(super) fn skb_bytes(&mut self, state: &mut State, helper: Helper) -> Returned {
        self.context_argument(helper, 1)?;
        let mut offset = self.scalar(helper, 2)? & 0xffff_ffff;
        let length = self.scalar(helper, 4)? & 0xffff_ffff;
        let refused = offset > i32::MAX as u64;
        if helper.number == LOAD_BYTES_RELATIVE {
            offset += match self.scalar(helper, 5)? {
                0 => 0,
                1 => ETH_HLEN as u64,
                _ => self.buffer.len() as u64 + 1,
            };
        }
        let inside = !refused && offset + length <= self.buffer.len() as u64;
        let range = || {
            let start = self.buffer.data + offset as usize;
            start..start + length as usize
        };
        if helper.number == STORE_BYTES {
            const KNOWN_FLAGS: u64 = 3;
            let flags = self.scalar(helper, 5)?;
            let bytes = self.buffer_argument(state, helper, 3, length)?;
            let range = if inside { Some(range()) } else { None };
            self.buffer.moved();
            if flags & !KNOWN_FLAGS != 0 {
                return Ok(Errno::EINVAL.result());
            }
            let Some(range) = range else {
                return Ok(Errno::EFAULT.result());
            };
            // What is written becomes linear.
            let _ = self.buffer.pull((offset + length) as u32);
            self.buffer.bytes[range].copy_from_slice(&bytes);
            return Ok(0);
        }
        let bytes = match inside {
            true => self.buffer.bytes[range()].to_vec(),
            false => vec![0; length as usize],
        };
        let to = self.pointer_argument(helper, 3)?;
        self.write_bytes(state, to, &bytes)?;
        Ok(if inside { 0 } else { Errno::EFAULT.result() })
    }

    /// Helpers that change the packet's shape or its metadata.
    pub(super) fn skb_change(&mut self, helper: Helper) -> Returned {
        self.context_argument(helper, 1)?;
        // How many numbers each takes behind the context.
        let count = match helper.number {
            19 => 0,
            32 | 39 => 1,
            50 => 3,
            _ => 2,
        };
        let mut arguments = [0; 3];
        for (n, argument) in (2..).zip(&mut arguments[..count]) {
            *argument = self.scalar(helper, n)?;
        }
        let [argument, second, third] = arguments;
        if helper.number != 32 {
            self.buffer.moved();
        }
        let result = match helper.number {
            18 => self.vlan_push(argument as u16, second as u16),
            19 => self.vlan_pop(),
            31 => self.change_proto(u16::from_be(argument as u16), second),
            32 => self.change_type(argument as u32),
            38 if second != 0 => Err(Errno::EINVAL),
            38 => self.buffer.change_tail(argument as u32),
            39 => {
                let bytes = match argument as u32 {
                    0 => (self.buffer.end - self.buffer.data) as u32,
                    bytes => bytes,
                };
                self.buffer.pull(bytes)
            }
            43 if second != 0 => Err(Errno::EINVAL),
            43 => self.buffer.change_head(argument as u32),
            _ => self.adjust_room(argument as u32, second as u32, third),
        };
        Ok(super::maps::code(result))
    }

    /// `bpf_get_hash_recalc`, `bpf_csum_update`, `bpf_set_hash_invalid`, `bpf_set_hash`, `bpf_csum_level`.
    pub(super) fn skb_hash_and_sum(&mut self, helper: Helper) -> Returned {
        self.context_argument(helper, 1)?;
        let argument = match helper.number {
            40 | 48 | 135 => self.scalar(helper, 2)?,
            _ => 0,
        };
        let Some(skb) = self.skb() else { return Ok(0) };
        Ok(match helper.number {
            34 => u64::from(skb.hash),
            // Only for sums that a device computed over all of it.
            40 => Errno::ENOTSUPP.result(),
            41 => {
                skb.hash = 0;
                0
            }
            48 => {
                skb.hash = argument as u32;
                0
            }
            _ => EACCES.result(),
        })
    }

    fn ethertype(&self) -> u16 {
        let packet = self.buffer.packet();
        packet
            .get(12..14)
            .map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// `bpf_skb_vlan_push`: a tag that is in metadata moves into the packet first.
    fn vlan_push(&mut self, protocol: u16, tci: u16) -> Result<(), Errno> {
        let protocol = match u16::from_be(protocol) {
            ETH_P_8021AD => ETH_P_8021AD,
            _ => ETH_P_8021Q,
        };
        let Some(skb) = self.skb() else { return Ok(()) };
        let old = skb.vlan.replace((protocol, tci));
        if let Some((protocol, tci)) = old {
            self.buffer.insert(12, VLAN_HLEN);
            let at = self.buffer.data + 12;
            self.buffer.bytes[at..at + 2].copy_from_slice(&protocol.to_be_bytes());
            self.buffer.bytes[at + 2..at + 4].copy_from_slice(&tci.to_be_bytes());
            self.follow_ethertype();
        }
        Ok(())
    }

    /// `bpf_skb_vlan_pop`: the outermost tag goes, and the next one moves into metadata.
    fn vlan_pop(&mut self) -> Result<(), Errno> {
        let popped = self.skb().and_then(|skb| skb.vlan.take()).is_some();
        if !popped && self.take_tag().is_none() {
            return Ok(());
        }
        if let Some(tag) = self.take_tag()
            && let Some(skb) = self.skb()
        {
            skb.vlan = Some(tag);
        }
        Ok(())
    }

    /// Takes the tag out of the packet.
    fn take_tag(&mut self) -> Option<(u16, u16)> {
        let protocol = self.ethertype();
        if !matches!(protocol, ETH_P_8021Q | ETH_P_8021AD) {
            return None;
        }
        let tci = self.buffer.packet().get(14..16)?;
        let tci = u16::from_be_bytes([tci[0], tci[1]]);
        self.buffer.remove(12, VLAN_HLEN);
        self.follow_ethertype();
        Some((protocol, tci))
    }

    /// The buffer's `protocol` is that of the frame again.
    fn follow_ethertype(&mut self) {
        if let Some(skb) = self.skb() {
            skb.protocol = None;
        }
    }

    /// `bpf_skb_change_proto`: room for the other IP header's 20 bytes more or less.
    fn change_proto(&mut self, protocol: u16, flags: u64) -> Result<(), Errno> {
        const DIFFERENCE: usize = 20;
        let from = self.protocol();
        if flags != 0 {
            return Err(Errno::EINVAL);
        }
        match (from, protocol) {
            (ETH_P_IP, ETH_P_IPV6) => self.buffer.insert(ETH_HLEN, DIFFERENCE),
            (ETH_P_IPV6, ETH_P_IP) if self.buffer.len() >= ETH_HLEN + 40 => {
                self.buffer.remove(ETH_HLEN, DIFFERENCE);
            }
            _ => return Err(Errno::ENOTSUPP),
        }
        if let Some(skb) = self.skb() {
            skb.protocol = Some(protocol);
        }
        Ok(())
    }

    fn change_type(&mut self, pkt_type: u32) -> Result<(), Errno> {
        match self.skb() {
            Some(SkbInput { pkt_type: now, .. })
                if *now <= PACKET_OTHERHOST && pkt_type <= PACKET_OTHERHOST =>
            {
                *now = pkt_type;
                Ok(())
            }
            _ => Err(Errno::EINVAL),
        }
    }

    fn protocol(&mut self) -> u16 {
        let ethertype = self.ethertype();
        self.skb().and_then(|skb| skb.protocol).unwrap_or(ethertype)
    }

    /// `bpf_skb_adjust_room`: behind the MAC header (mode 1) or behind the IP header (mode 0).
    fn adjust_room(&mut self, difference: u32, mode: u32, flags: u64) -> Result<(), Errno> {
        const KNOWN_FLAGS: u64 = 0x1ff;
        const LARGEST: u32 = 0xfff;
        let difference = difference.cast_signed();
        if flags & !KNOWN_FLAGS != 0 {
            return Err(Errno::EINVAL);
        }
        if difference.unsigned_abs() > LARGEST {
            return Err(Errno::EFAULT);
        }
        let ip = match self.protocol() {
            ETH_P_IP => 20,
            ETH_P_IPV6 => 40,
            _ => return Err(Errno::ENOTSUPP),
        };
        let at = match mode {
            0 => ETH_HLEN + ip,
            1 => ETH_HLEN,
            _ => return Err(Errno::ENOTSUPP),
        };
        let bytes = difference.unsigned_abs() as usize;
        if difference >= 0 {
            if self.buffer.len() < at {
                return Err(Errno::ENOMEM);
            }
            self.buffer.insert(at, bytes);
        } else {
            if self.buffer.len() < ETH_HLEN + ip + bytes {
                return Err(Errno::ENOTSUPP);
            }
            self.buffer.remove(at, bytes);
        }
        Ok(())
    }
}
