//! Internet checksums as the kernel's helpers correct them (RFC 1071, RFC 1624; include/net/checksum.h).

use super::{Helper, Returned};
use crate::interpreter::cpu::Cpu;
use crate::interpreter::map::Errno;
use crate::interpreter::packet::Checksum;
use crate::interpreter::state::State;

/// `BPF_F_HDR_FIELD_MASK`: the size of what changed.
const SIZE: u64 = 0xf;
/// `BPF_F_PSEUDO_HDR`.
const PSEUDO_HEADER: u64 = 1 << 4;
/// `BPF_F_MARK_MANGLED_0`.
const MARK_MANGLED_0: u64 = 1 << 5;
/// `BPF_F_MARK_ENFORCE`.
const MARK_ENFORCE: u64 = 1 << 6;
/// `BPF_F_IPV6`.
const IPV6: u64 = 1 << 7;
/// `CSUM_MANGLED_0`.
const MANGLED_0: u16 = 0xffff;
const L3: u32 = 10;

impl Cpu {
    /// `bpf_l3_csum_replace`, `bpf_l4_csum_replace`.
    pub(super) fn csum_replace(&mut self, helper: Helper) -> Returned {
        self.context_argument(helper, 1)?;
        let offset = self.scalar(helper, 2)? & 0xffff_ffff;
        let from = self.scalar(helper, 3)?;
        let to = self.scalar(helper, 4)?;
        let flags = self.scalar(helper, 5)?;
        self.buffer.moved();
        let known = match helper.number {
            L3 => SIZE,
            _ => SIZE | PSEUDO_HEADER | MARK_MANGLED_0 | MARK_ENFORCE | IPV6,
        };
        if flags & !known != 0 {
            return Ok(Errno::EINVAL.result());
        }
        if offset > 0xffff || offset % 2 != 0 || self.buffer.pull(offset as u32 + 2).is_err() {
            return Ok(Errno::EFAULT.result());
        }
        let at = self.buffer.data + offset as usize;
        let sum = u16::from_le_bytes([self.buffer.bytes[at], self.buffer.bytes[at + 1]]);
        let zero_is_none = flags & MARK_MANGLED_0 != 0;
        if zero_is_none && flags & MARK_ENFORCE == 0 && sum == 0 {
            return Ok(0);
        }
        let partial = helper.number != L3
            && self
                .skb()
                .is_some_and(|skb| skb.checksum == Checksum::Partial);
        let pseudo = flags & PSEUDO_HEADER != 0;
        let complement = u32::from(!sum);
        let (from, to) = match flags & SIZE {
            0 if from == 0 => (0, to as u32),
            2 if helper.number == L3 => (u32::from(from as u16), u32::from(to as u16)),
            2 | 4 => (from as u32, to as u32),
            _ => return Ok(Errno::EINVAL.result()),
        };
        let new = match (partial, pseudo) {
            (false, _) => !fold(add(add(complement, !from), to)),
            // The place holds the pseudo header's sum, not its complement.
            (true, true) => fold(add(add(u32::from(sum), !from), to)),
            (true, false) => sum,
        };
        // A difference has no "from" that could be subtracted.
        let new = match (flags & SIZE, partial, pseudo) {
            (0, false, _) => !fold(add(complement, to)),
            (0, true, true) => fold(add(u32::from(sum), to)),
            _ => new,
        };
        let new = if zero_is_none && new == 0 {
            MANGLED_0
        } else {
            new
        };
        self.buffer.bytes[at..at + 2].copy_from_slice(&new.to_le_bytes());
        Ok(0)
    }

    /// `bpf_csum_diff`: since Linux 6.13 folded to 16 bits everywhere.
    pub(super) fn csum_diff(&mut self, state: &State, helper: Helper) -> Returned {
        let from_bytes = self.scalar(helper, 2)? & 0xffff_ffff;
        let to_bytes = self.scalar(helper, 4)? & 0xffff_ffff;
        let seed = self.scalar(helper, 5)? as u32;
        if (from_bytes | to_bytes) & 3 != 0 {
            return Ok(Errno::EINVAL.result());
        }
        let from = self.buffer_argument(state, helper, 1, from_bytes)?;
        let to = self.buffer_argument(state, helper, 3, to_bytes)?;
        let sum = match (from.is_empty(), to.is_empty()) {
            (false, false) => add(partial(&to, seed), !partial(&from, 0)),
            (true, false) => partial(&to, seed),
            (false, true) => !partial(&from, !seed),
            (true, true) => seed,
        };
        Ok(u64::from(fold(sum)))
    }
}

/// One's complement addition.
fn add(a: u32, b: u32) -> u32 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u32::from(carry)
}

/// To 16 bits, not complemented.
fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

fn partial(bytes: &[u8], seed: u32) -> u32 {
    let words = bytes.chunks_exact(4);
    words.fold(seed, |sum, word| {
        add(
            sum,
            u32::from_le_bytes([word[0], word[1], word[2], word[3]]),
        )
    })
}
