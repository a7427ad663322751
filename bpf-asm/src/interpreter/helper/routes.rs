//! `bpf_fib_lookup` and `bpf_check_mtu`, from the routes and MTUs that a test gave.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Helper, Returned};
use crate::interpreter::cpu::Cpu;
use crate::interpreter::map::Errno;
use crate::interpreter::route::{DEFAULT_MTU, RouteAnswer};
use crate::interpreter::state::State;

/// `sizeof(struct bpf_fib_lookup)`.
const PARAMETERS: usize = 64;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const EAFNOSUPPORT: Errno = Errno(97);
/// All of `BPF_FIB_LOOKUP_*`.
const KNOWN_FLAGS: u64 = 0x3f;
/// `BPF_FIB_LOOKUP_SKIP_NEIGH`.
const SKIP_NEIGHBOUR: u64 = 1 << 2;
/// `BPF_MTU_CHK_RET_FRAG_NEEDED`.
const TOO_LONG: u64 = 1;
const ETH_HLEN: i64 = 14;

impl Cpu {
    /// `bpf_fib_lookup`.
    pub(super) fn fib_lookup(&mut self, state: &mut State, helper: Helper) -> Returned {
        self.context_argument(helper, 1)?;
        let place = self.pointer_argument(helper, 2)?;
        let length = self.scalar(helper, 3)?;
        let flags = self.scalar(helper, 4)?;
        if length < PARAMETERS as u64 || flags & !KNOWN_FLAGS != 0 {
            return Ok(Errno::EINVAL.result());
        }
        let mut block = [0; PARAMETERS];
        self.read_bytes(state, place, &mut block)?;
        let destination = match block[0] {
            AF_INET => IpAddr::V4(Ipv4Addr::from([block[32], block[33], block[34], block[35]])),
            AF_INET6 => {
                let mut octets = [0; 16];
                octets.copy_from_slice(&block[32..48]);
                IpAddr::V6(Ipv6Addr::from(octets))
            }
            _ => return Ok(EAFNOSUPPORT.result()),
        };
        let covering = state
            .routes
            .iter()
            .filter(|route| route.covers(destination));
        let Some(route) = covering.max_by_key(|route| route.prefix).cloned() else {
            return Ok(RouteAnswer::NotForwarded as u64);
        };
        let answer = match route.answer {
            RouteAnswer::NoNeighbour if flags & SKIP_NEIGHBOUR != 0 => RouteAnswer::Success,
            answer => answer,
        };
        if !matches!(answer, RouteAnswer::Success | RouteAnswer::NoNeighbour) {
            return Ok(answer as u64);
        }
        let interface = state
            .mtus
            .get(&route.ifindex)
            .copied()
            .unwrap_or(DEFAULT_MTU);
        let mtu = if route.mtu == 0 { interface } else { route.mtu };
        let total = u16::from_le_bytes([block[6], block[7]]);
        if total != 0 {
            // In: the length to be checked. Out: the MTU.
            block[6..8].copy_from_slice(&u16::try_from(mtu).unwrap_or(u16::MAX).to_le_bytes());
        }
        let too_long = u32::from(total) > mtu;
        if !too_long {
            block[8..12].copy_from_slice(&route.ifindex.to_le_bytes());
            match route.gateway {
                Some(IpAddr::V4(gateway)) => block[32..36].copy_from_slice(&gateway.octets()),
                Some(IpAddr::V6(gateway)) => {
                    block[0] = AF_INET6;
                    block[32..48].copy_from_slice(&gateway.octets());
                }
                None => {}
            }
            block[12..16].fill(0);
            if answer == RouteAnswer::Success && flags & SKIP_NEIGHBOUR == 0 {
                block[48..52].fill(0);
                block[52..58].copy_from_slice(&route.source_mac);
                block[58..64].copy_from_slice(&route.destination_mac);
            }
        }
        self.write_bytes(state, place, &block)?;
        Ok(if too_long {
            RouteAnswer::FragmentationNeeded as u64
        } else {
            answer as u64
        })
    }

    /// `bpf_check_mtu`.
    pub(super) fn check_mtu(&mut self, state: &mut State, helper: Helper) -> Returned {
        self.context_argument(helper, 1)?;
        let ifindex = self.scalar(helper, 2)? as u32;
        let place = self.pointer_argument(helper, 3)?;
        let difference = self.scalar(helper, 4)? as u32;
        let flags = self.scalar(helper, 5)?;
        let mut word = [0; 4];
        self.read_bytes(state, place, &mut word)?;
        if flags & !1 != 0 {
            return Ok(Errno::EINVAL.result());
        }
        let mtu = state.mtus.get(&ifindex).copied().unwrap_or(DEFAULT_MTU);
        let given = i64::from(u32::from_le_bytes(word));
        let length = match given {
            0 => self.buffer.len() as i64,
            given => given + ETH_HLEN,
        };
        let length = length + i64::from(difference.cast_signed());
        self.write_bytes(state, place, &mtu.to_le_bytes())?;
        let most = i64::from(mtu) + ETH_HLEN;
        Ok(if length > most { TOO_LONG } else { 0 })
    }
}
