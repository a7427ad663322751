//! The routes that `bpf_fib_lookup` finds, as a test wants them to be.

use std::net::IpAddr;

/// The MTU of interfaces that a test says nothing of.
pub const DEFAULT_MTU: u32 = 1500;

/// `BPF_FIB_LKUP_RET_*`: what became of a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteAnswer {
    /// Found, with its next hop's address known.
    Success = 0,
    /// A blackhole route.
    Blackhole = 1,
    /// An unreachable route.
    Unreachable = 2,
    /// A prohibited route.
    Prohibit = 3,
    /// No route: the packet is for this host.
    NotForwarded = 4,
    /// Forwarding is off.
    ForwardingDisabled = 5,
    /// A tunnel.
    UnsupportedTunnel = 6,
    /// Found, and nobody knows the next hop's address.
    NoNeighbour = 7,
    /// The packet is longer than the route's MTU.
    FragmentationNeeded = 8,
    /// No source address.
    NoSourceAddress = 9,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its destination's address.
    pub network: IpAddr,
    /// How many of its bits count.
    pub prefix: u8,
    /// What a look-up says.
    pub answer: RouteAnswer,
    /// Where packets leave.
    pub ifindex: u32,
    /// The gateway, or None when the destination itself is the next hop.
    pub gateway: Option<IpAddr>,
    /// The next hop's MAC address.
    pub destination_mac: [u8; 6],
    /// The interface's MAC address.
    pub source_mac: [u8; 6],
    /// Its MTU; 0 for the interface's.
    pub mtu: u32,
}

impl Route {
    /// Whether it covers `address`.
    pub(super) fn covers(&self, address: IpAddr) -> bool {
        match (self.network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.leading_zeros() >= u32::from(self.prefix.min(32))
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.leading_zeros() >= u32::from(self.prefix.min(128))
            }
            _ => false,
        }
    }
}
