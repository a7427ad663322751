//! What an interface is, and what can be attached to it.

use std::io;
use std::net::IpAddr;

use aya::programs::links::FdLink;
use aya::programs::tc::TcAttachOptions;
use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode, loaded_programs,
};
use bpf_asm::program::ProgramKind;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use netlink_packet_route::link::{
    LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, State,
};
use netlink_packet_route::neighbour::{NeighbourMessage, NeighbourState};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{PROGRAM, Refusal, load};
use crate::attach::{chain, is_occupied};
use crate::neighbours::{Neighbours, address_and_mac, interface_index};

/// An interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether it has a carrier, so that packets pass.
    pub running: bool,
    /// The largest IP packet, in bytes.
    pub mtu: u32,
    /// Whether its frames are Ethernet's; the programs read no others.
    pub ethernet: bool,
    /// What sort of virtual device it is, for example `veth`; none for hardware.
    pub kind: Option<String>,
    /// The name of the XDP program that is attached, `?` where it can't be had.
    pub xdp_program: Option<String>,
    /// The hosts that it knows a MAC address of, or fails to find one for.
    pub neighbours: Vec<Neighbour>,
}

/// A host in an interface's neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address.
    pub address: IpAddr,
    /// Its MAC address; none when it doesn't answer.
    pub mac: Option<[u8; 6]>,
}

/// Whether a program can be attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attachable {
    /// It was attached and detached.
    Yes,
    /// Another program has the place.
    Busy,
    /// The kernel or the driver refuses; why.
    No(String),
    /// This process isn't allowed to ask.
    Forbidden,
}

/// Looks at an interface; None when there is none of that name.
///
/// # Errors
/// Netlink sockets can't be made or the kernel refuses a question.
pub fn interface(name: &str) -> io::Result<Option<Interface>> {
    let Some(index) = interface_index(name) else {
        return Ok(None);
    };
    let mut netlink = Neighbours::new(index, Vec::new())?;
    let mut question = LinkMessage::default();
    question.header.index = index;
    let mut found = None;
    netlink.ask(
        RouteNetlinkMessage::GetLink(question),
        NLM_F_REQUEST,
        |answer| {
            if let RouteNetlinkMessage::NewLink(link) = answer {
                found = Some(describe(&link));
            }
        },
    )?;
    let Some(mut interface) = found else {
        return Ok(None);
    };
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut question = NeighbourMessage::default();
        question.header.family = family;
        let question = RouteNetlinkMessage::GetNeighbour(question);
        netlink.ask(question, NLM_F_REQUEST | NLM_F_DUMP, |answer| {
            if let RouteNetlinkMessage::NewNeighbour(neighbour) = answer
                && neighbour.header.ifindex == index
                && neighbour.header.state != NeighbourState::Noarp
                && let Some((address, mac)) = address_and_mac(&neighbour)
            {
                interface.neighbours.push(Neighbour { address, mac });
            }
        })?;
    }
    Ok(Some(interface))
}

/// Attaches an XDP program that passes everything, and detaches it. On some drivers this resets the link.
#[must_use]
pub fn xdp(interface: u32, native: bool) -> Attachable {
    let mut ebpf = match load(ProgramKind::Xdp, Vec::new(), |_| {}) {
        Ok(ebpf) => ebpf,
        Err(refusal) => return refusal.into(),
    };
    let program: Option<&mut Xdp> = ebpf
        .program_mut(PROGRAM)
        .and_then(|program| program.try_into().ok());
    let Some(program) = program else {
        return Attachable::No("no probe".into());
    };
    let mode = if native {
        XdpMode::Driver
    } else {
        XdpMode::Skb
    };
    match program
        .attach_to_if_index(interface, mode)
        .and_then(|id| program.take_link(id))
    {
        // Detached when dropped. Without a link the programs would outlive their replica, and are refused.
        Ok(link) => match FdLink::try_from(link) {
            Ok(_) => Attachable::Yes,
            Err(_) => Attachable::No("the kernel has no XDP links (Linux 5.9 has them)".into()),
        },
        Err(error) if is_occupied(&error) => Attachable::Busy,
        Err(error) => refused(&error),
    }
}

/// Attaches a TC egress program that decides nothing by a TCX link, and detaches it.
#[must_use]
pub fn tcx(interface: &str) -> Attachable {
    let mut ebpf = match load(ProgramKind::Classifier, Vec::new(), |_| {}) {
        Ok(ebpf) => ebpf,
        Err(refusal) => return refusal.into(),
    };
    let program: Option<&mut SchedClassifier> = ebpf
        .program_mut(PROGRAM)
        .and_then(|program| program.try_into().ok());
    let Some(program) = program else {
        return Attachable::No("no probe".into());
    };
    let order = TcAttachOptions::TcxOrder(LinkOrder::default());
    match program.attach_with_options(interface, TcAttachType::Egress, order) {
        // Detached when the program is dropped.
        Ok(_) => Attachable::Yes,
        Err(error) => refused(&error),
    }
}

fn refused(error: &ProgramError) -> Attachable {
    let text = chain(error);
    if text.contains("Operation not permitted") || text.contains("Permission denied") {
        Attachable::Forbidden
    } else {
        Attachable::No(text)
    }
}

impl From<Refusal> for Attachable {
    fn from(refusal: Refusal) -> Attachable {
        match refusal {
            Refusal::Forbidden => Attachable::Forbidden,
            Refusal::Because(reason) => Attachable::No(reason),
        }
    }
}

fn describe(link: &LinkMessage) -> Interface {
    let flags = link.header.flags;
    let mut interface = Interface {
        index: link.header.index,
        up: flags.contains(LinkFlags::Up),
        running: flags.contains(LinkFlags::Running),
        mtu: 0,
        // The loopback device's frames have an Ethernet header as well.
        ethernet: matches!(
            link.header.link_layer_type,
            LinkLayerType::Ether | LinkLayerType::Loopback
        ),
        kind: None,
        xdp_program: None,
        neighbours: Vec::new(),
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
            LinkAttribute::OperState(State::Up) => interface.running = true,
            LinkAttribute::LinkInfo(infos) => {
                interface.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            LinkAttribute::Xdp(xdp) => {
                let id = xdp.iter().find_map(|attribute| match attribute {
                    LinkXdp::ProgId(id) => Some(*id),
                    _ => None,
                });
                interface.xdp_program = id.map(program_name);
            }
            _ => {}
        }
    }
    interface
}

fn program_name(id: u32) -> String {
    let program = loaded_programs()
        .flatten()
        .find(|program| program.id() == id);
    let name = program.and_then(|program| program.name_as_str().map(str::to_owned));
    name.unwrap_or_else(|| "?".into())
}
