//! Helpers of XDP programs, and those that send packets elsewhere.

use super::{Helper, Returned};
use crate::interpreter::context::Context;
use crate::interpreter::cpu::{Cpu, Redirect};
use crate::interpreter::fault::FaultKind;
use crate::interpreter::image::Hook;
use crate::interpreter::map::{Errno, Kind};
use crate::interpreter::packet::{Checksum, Output, OutputKind};
use crate::interpreter::state::State;

const XDP_ABORTED: u64 = 0;
const XDP_REDIRECT: u64 = 4;
const TC_ACT_SHOT: u64 = 2;
const TC_ACT_REDIRECT: u64 = 7;
/// `BPF_F_INGRESS`.
const INGRESS: u64 = 1;
/// The bits of `bpf_redirect_map`'s flags that are the action for an empty entry.
const ACTION: u64 = 3;
/// `BPF_F_BROADCAST`.
const BROADCAST: u64 = 1 << 3;
/// `BPF_F_EXCLUDE_INGRESS`.
const EXCLUDE_INGRESS: u64 = 1 << 4;

const ADJUST_HEAD: u32 = 44;
const ADJUST_META: u32 = 54;
const XDP_LOAD_BYTES: u32 = 189;

impl Cpu {
    /// `bpf_xdp_adjust_head`, `_meta`, `_tail`.
    pub(super) fn xdp_adjust(&mut self, helper: Helper) -> Returned {
        self.context_argument(helper, 1)?;
        let by = self.scalar(helper, 2)? as u32;
        let by = by.cast_signed();
        let result = match helper.number {
            ADJUST_HEAD => self.buffer.xdp_adjust_head(by),
            ADJUST_META => self.buffer.xdp_adjust_meta(by),
            _ => self.buffer.xdp_adjust_tail(by),
        };
        self.buffer.moved();
        Ok(super::maps::code(result))
    }

    /// `bpf_xdp_load_bytes`, `bpf_xdp_store_bytes`.
    pub(super) fn xdp_bytes(&mut self, state: &mut State, helper: Helper) -> Returned {
        self.context_argument(helper, 1)?;
        let offset = self.scalar(helper, 2)? & 0xffff_ffff;
        let length = self.scalar(helper, 4)? & 0xffff_ffff;
        if offset > 0xffff || length > 0xffff {
            return Ok(Errno::EFAULT.result());
        }
        let inside = offset + length <= self.buffer.len() as u64;
        let start = self.buffer.data + offset as usize;
        let end = start + length as usize;
        if helper.number == XDP_LOAD_BYTES {
            let to = self.pointer_argument(helper, 3)?;
            let bytes = match inside {
                true => self.buffer.bytes[start..end].to_vec(),
                // The verifier takes the buffer for written either way.
                false => vec![0; length as usize],
            };
            self.write_bytes(state, to, &bytes)?;
        } else {
            let bytes = self.buffer_argument(state, helper, 3, length)?;
            if inside {
                self.buffer.bytes[start..end].copy_from_slice(&bytes);
            }
        }
        Ok(if inside { 0 } else { Errno::EINVAL.result() })
    }

    /// `bpf_redirect`.
    pub(super) fn redirect(&mut self, helper: Helper) -> Returned {
        let ifindex = self.scalar(helper, 1)? as u32;
        let flags = self.scalar(helper, 2)?;
        let (allowed, refused, verdict) = match self.hook {
            Hook::Tc => (INGRESS, TC_ACT_SHOT, TC_ACT_REDIRECT),
            _ => (0, XDP_ABORTED, XDP_REDIRECT),
        };
        if flags & !allowed != 0 {
            return Ok(refused);
        }
        self.redirect = Some(Redirect {
            kind: OutputKind::Redirect,
            to: vec![ifindex],
            flags,
        });
        Ok(verdict)
    }

    /// `bpf_redirect_peer`.
    pub(super) fn redirect_peer(&mut self, helper: Helper) -> Returned {
        let ifindex = self.scalar(helper, 1)? as u32;
        let flags = self.scalar(helper, 2)?;
        if flags != 0 {
            return Ok(TC_ACT_SHOT);
        }
        self.redirect = Some(Redirect {
            kind: OutputKind::RedirectPeer,
            to: vec![ifindex],
            flags,
        });
        Ok(TC_ACT_REDIRECT)
    }

    /// `bpf_redirect_map`.
    pub(super) fn redirect_map(&mut self, state: &mut State, helper: Helper) -> Returned {
        let map = self.map_argument(helper, 1)?;
        let key = self.scalar(helper, 2)? as u32;
        let flags = self.scalar(helper, 3)?;
        let kind = state.maps[map as usize].kind;
        if !kind.redirects() {
            return Err(self.wrong_map(state, helper, map));
        }
        let many = match kind {
            Kind::DevMap | Kind::DevMapHash => BROADCAST | EXCLUDE_INGRESS,
            _ => 0,
        };
        if flags & !(ACTION | many) != 0 {
            return Ok(XDP_ABORTED);
        }
        let to = if flags & BROADCAST != 0 {
            let excluded = match &self.context {
                Context::Xdp(xdp) if flags & EXCLUDE_INGRESS != 0 => Some(xdp.ingress_ifindex),
                _ => None,
            };
            let map = &state.maps[map as usize];
            let elements = map.elements().into_iter();
            let interfaces = elements.map(|element| entry(map.value(element)));
            interfaces
                .filter(|to| *to != 0 && Some(*to) != excluded)
                .collect()
        } else {
            let map = &mut state.maps[map as usize];
            let found = map.find(&key.to_le_bytes());
            match found.map(|element| entry(map.value(element))) {
                Some(to) if to != 0 => vec![to],
                _ => {
                    self.redirect = None;
                    return Ok(flags & ACTION);
                }
            }
        };
        let kind = OutputKind::RedirectMap;
        self.redirect = Some(Redirect { kind, to, flags });
        Ok(XDP_REDIRECT)
    }

    /// `bpf_clone_redirect`.
    pub(super) fn clone_redirect(&mut self, state: &State, helper: Helper) -> Returned {
        self.context_argument(helper, 1)?;
        let ifindex = self.scalar(helper, 2)? as u32;
        let flags = self.scalar(helper, 3)?;
        self.buffer.moved();
        if flags & !INGRESS != 0 || state.removed_interfaces.contains(&ifindex) {
            return Ok(Errno::EINVAL.result());
        }
        let output = self.output(OutputKind::Clone, ifindex, flags);
        self.outputs.push(output);
        Ok(0)
    }

    /// Sends the packet where a redirect helper said, if the verdict is to do that.
    pub(in crate::interpreter) fn send_redirected(
        &mut self,
        state: &State,
        verdict: u64,
    ) -> Result<(), FaultKind> {
        let wanted = match self.hook {
            Hook::Raw => return Ok(()),
            Hook::Xdp => XDP_REDIRECT,
            Hook::Tc => TC_ACT_REDIRECT,
        };
        if verdict & 0xffff_ffff != wanted {
            return Ok(());
        }
        let Some(redirect) = self.redirect.take() else {
            return Ok(());
        };
        for to in redirect.to {
            if state.removed_interfaces.contains(&to) {
                continue;
            }
            let output = self.output(redirect.kind, to, redirect.flags);
            self.outputs.push(output);
        }
        Ok(())
    }

    fn output(&mut self, kind: OutputKind, ifindex: u32, flags: u64) -> Output {
        let packet = self.buffer.packet().to_vec();
        let (mark, vlan, checksum) = match self.skb() {
            Some(skb) => (skb.mark, skb.vlan, skb.checksum),
            None => (0, None, Checksum::None),
        };
        Output {
            kind,
            ifindex,
            flags,
            mark,
            vlan,
            checksum,
            packet,
        }
    }
}

/// An entry's interface, 0 if it has none.
fn entry(value: &[u8]) -> u32 {
    let word = value.first_chunk::<4>().copied();
    word.map_or(0, u32::from_le_bytes)
}
