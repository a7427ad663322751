//! Next-hop MACs of the other replicas, from the system: routes and neighbours are asked for by netlink and followed by
//! its notifications. `broadcast` writes these MACs into its copies.
//!
//! Copies made by a program never confirm a neighbour entry, so [`Neighbours::refresh`] asks the kernel to use (and if need
//! be probe) each of them (`NTF_USE`), well before an entry would be dropped.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteVia};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

// Multicast groups of rtnetlink, `enum rtnetlink_groups` of linux/rtnetlink.h.
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_NEIGH: u32 = 3;
const RTNLGRP_IPV4_ROUTE: u32 = 7;
const RTNLGRP_IPV6_ROUTE: u32 = 11;

/// Bytes for one datagram of netlink; the kernel makes dumps of at most 32 KiB a piece.
const BUFFER_BYTES: usize = 64 << 10;
/// Datagrams taken at one [`Neighbours::update`].
const DATAGRAMS: usize = 64;

/// The MAC of a next hop.
pub(crate) type Mac = [u8; 6];

/// Follows the next hops of a fixed set of addresses on one interface.
#[derive(Debug)]
pub(crate) struct Neighbours {
    /// Notifications, non-blocking.
    events: Socket,
    /// Questions and answers, blocking (local to the kernel: answered at once).
    questions: Socket,
    sequence: u32,
    interface: u32,
    peers: Vec<IpAddr>,
    /// The next hop towards each peer, when it is on this interface.
    hops: Vec<Option<IpAddr>>,
    known: HashMap<IpAddr, Mac>,
    buffer: Vec<u8>,
}

impl Neighbours {
    /// Starts to follow the next hops towards `peers` on the interface with this index.
    ///
    /// # Errors
    /// Netlink sockets can't be made or the kernel refuses a question.
    pub(crate) fn new(interface: u32, peers: Vec<IpAddr>) -> io::Result<Neighbours> {
        let mut events = Socket::new(NETLINK_ROUTE)?;
        events.bind_auto()?;
        for group in [
            RTNLGRP_LINK,
            RTNLGRP_NEIGH,
            RTNLGRP_IPV4_ROUTE,
            RTNLGRP_IPV6_ROUTE,
        ] {
            events.add_membership(group)?;
        }
        events.set_non_blocking(true)?;
        let mut questions = Socket::new(NETLINK_ROUTE)?;
        questions.bind_auto()?;
        questions.connect(&SocketAddr::new(0, 0))?;
        let hops = vec![None; peers.len()];
        let mut neighbours = Neighbours {
            events,
            questions,
            sequence: 0,
            interface,
            peers,
            hops,
            known: HashMap::new(),
            buffer: Vec::with_capacity(BUFFER_BYTES),
        };
        neighbours.reload()?;
        Ok(neighbours)
    }

    /// Readable when something changed.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// The next hop's MAC towards each peer, in the order given.
    pub(crate) fn macs(&self) -> impl Iterator<Item = Option<Mac>> + '_ {
        self.hops
            .iter()
            .map(|hop| hop.and_then(|hop| self.known.get(&hop).copied()))
    }

    /// Takes notifications; true when something changed that concerns us.
    pub(crate) fn update(&mut self) -> io::Result<bool> {
        let (mut changed, mut routes) = (false, false);
        for _ in 0..DATAGRAMS {
            self.buffer.clear();
            match self.events.recv(&mut self.buffer, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The kernel dropped notifications: what we know may be stale, ask again.
                Err(error)
                    if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) =>
                {
                    routes = true;
                    break;
                }
                Err(error) => return Err(error),
            }
            let buffer = std::mem::take(&mut self.buffer);
            each_message(&buffer, |message| match message {
                RouteNetlinkMessage::NewNeighbour(neighbour) => changed |= self.learn(&neighbour),
                RouteNetlinkMessage::DelNeighbour(neighbour) => changed |= self.forget(&neighbour),
                RouteNetlinkMessage::NewRoute(_)
                | RouteNetlinkMessage::DelRoute(_)
                | RouteNetlinkMessage::NewLink(_)
                | RouteNetlinkMessage::DelLink(_) => routes = true,
                _ => {}
            });
            self.buffer = buffer;
        }
        if routes {
            self.reload()?;
        }
        Ok(changed || routes)
    }

    /// Asks the kernel to keep each next hop fresh: resolve what is missing, probe what is stale.
    pub(crate) fn refresh(&mut self) -> io::Result<()> {
        let hops: Vec<IpAddr> = self.hops.iter().flatten().copied().collect();
        for hop in hops {
            let mut message = NeighbourMessage::default();
            message.header.family = family(hop);
            message.header.ifindex = self.interface;
            message.header.flags = NeighbourFlags::Use;
            message
                .attributes
                .push(NeighbourAttribute::Destination(hop.into()));
            self.ask(
                RouteNetlinkMessage::NewNeighbour(message),
                NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE,
                |_| {},
            )?;
        }
        Ok(())
    }

    /// Asks for all routes and neighbours afresh.
    fn reload(&mut self) -> io::Result<()> {
        for index in 0..self.peers.len() {
            self.hops[index] = self.route(self.peers[index]);
        }
        let mut all = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = NeighbourMessage::default();
            message.header.family = family;
            self.ask(
                RouteNetlinkMessage::GetNeighbour(message),
                NLM_F_REQUEST | NLM_F_DUMP,
                |answer| {
                    if let RouteNetlinkMessage::NewNeighbour(neighbour) = answer {
                        all.push(neighbour);
                    }
                },
            )?;
        }
        self.known.clear();
        for neighbour in &all {
            self.learn(neighbour);
        }
        Ok(())
    }

    /// The next hop towards an address, if it leaves by our interface. No route is no error: a peer may come back.
    fn route(&mut self, peer: IpAddr) -> Option<IpAddr> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(peer);
        message.header.destination_prefix_length = if peer.is_ipv4() { 32 } else { 128 };
        message
            .attributes
            .push(RouteAttribute::Destination(match peer {
                IpAddr::V4(address) => RouteAddress::Inet(address),
                IpAddr::V6(address) => RouteAddress::Inet6(address),
            }));
        let (mut interface, mut gateway) = (None, None);
        self.ask(
            RouteNetlinkMessage::GetRoute(message),
            NLM_F_REQUEST,
            |answer| {
                let RouteNetlinkMessage::NewRoute(route) = answer else {
                    return;
                };
                for attribute in route.attributes {
                    match attribute {
                        RouteAttribute::Oif(index) => interface = Some(index),
                        RouteAttribute::Gateway(RouteAddress::Inet(address))
                        | RouteAttribute::Via(RouteVia::Inet(address)) => {
                            gateway = Some(IpAddr::V4(address))
                        }
                        RouteAttribute::Gateway(RouteAddress::Inet6(address))
                        | RouteAttribute::Via(RouteVia::Inet6(address)) => {
                            gateway = Some(IpAddr::V6(address))
                        }
                        _ => {}
                    }
                }
            },
        )
        .ok()?;
        (interface == Some(self.interface)).then_some(gateway.unwrap_or(peer))
    }

    fn learn(&mut self, neighbour: &NeighbourMessage) -> bool {
        if neighbour.header.ifindex != self.interface {
            return false;
        }
        let Some((address, mac)) = address_and_mac(neighbour) else {
            return false;
        };
        let usable = matches!(
            neighbour.header.state,
            NeighbourState::Reachable
                | NeighbourState::Stale
                | NeighbourState::Delay
                | NeighbourState::Probe
                | NeighbourState::Permanent
                | NeighbourState::Noarp
        );
        match mac {
            Some(mac) if usable => self.known.insert(address, mac) != Some(mac),
            _ => self.known.remove(&address).is_some(),
        }
    }

    fn forget(&mut self, neighbour: &NeighbourMessage) -> bool {
        neighbour.header.ifindex == self.interface
            && address_and_mac(neighbour)
                .is_some_and(|(address, _)| self.known.remove(&address).is_some())
    }

    /// One question; `take` gets every answer.
    pub(crate) fn ask(
        &mut self,
        question: RouteNetlinkMessage,
        flags: u16,
        mut take: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(question);
        message.header.flags = flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.questions.send(&bytes, 0)?;
        let dump = flags & NLM_F_DUMP == NLM_F_DUMP;
        loop {
            self.buffer.clear();
            self.questions.recv(&mut self.buffer, 0)?;
            let mut rest = &self.buffer[..];
            while let Some((answer, length)) = next_message(rest) {
                rest = &rest[length..];
                let Some(answer) = answer else { continue };
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) => {
                        return if error.code.is_some() {
                            Err(error.to_io())
                        } else {
                            Ok(())
                        };
                    }
                    NetlinkPayload::InnerMessage(inner) => {
                        take(inner);
                        if !dump && flags & NLM_F_ACK == 0 {
                            return Ok(());
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

pub(crate) fn address_and_mac(neighbour: &NeighbourMessage) -> Option<(IpAddr, Option<Mac>)> {
    let (mut address, mut mac) = (None, None);
    for attribute in &neighbour.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::V4(*v4))
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::V6(*v6))
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = Mac::try_from(&bytes[..]).ok(),
            _ => {}
        }
    }
    Some((address?, mac))
}

/// The first message of a datagram, and how many bytes it takes with its padding. A message that doesn't parse is None inside.
fn next_message(bytes: &[u8]) -> Option<(Option<NetlinkMessage<RouteNetlinkMessage>>, usize)> {
    const NLMSG_HEADER: usize = 16;
    if bytes.len() < NLMSG_HEADER {
        return None;
    }
    let length = u32::from_ne_bytes(bytes[..4].try_into().ok()?) as usize;
    if length < NLMSG_HEADER || length > bytes.len() {
        return None;
    }
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes[..length]).ok();
    Some((message, length.next_multiple_of(4).min(bytes.len())))
}

fn each_message(mut bytes: &[u8], mut take: impl FnMut(RouteNetlinkMessage)) {
    while let Some((message, length)) = next_message(bytes) {
        bytes = &bytes[length..];
        if let Some(NetlinkMessage {
            payload: NetlinkPayload::InnerMessage(inner),
            ..
        }) = message
        {
            take(inner);
        }
    }
}

/// The index of an interface by its name.
pub(crate) fn interface_index(name: &str) -> Option<u32> {
    nix::net::if_::if_nametoindex(name).ok()
}
