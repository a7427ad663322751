//! Which interface the other replicas are reached through, found by asking the routing table the portable way: connect
//! a datagram socket, and look whose address it got.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

/// Why no interface was found.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// A group of one has nobody to reach.
    #[error("a group of one replica has no other replica to reach: there is nothing to accelerate")]
    Alone,
    /// The peer lives on this machine, in this network namespace: its packets never see an interface's driver.
    #[error(
        "{0} is an address of this very machine: packets to it go over loopback, where there is nothing to accelerate"
    )]
    Local(SocketAddr),
    /// There is no route.
    #[error("no route to {peer} ({source}); give --interface")]
    NoRoute {
        /// The peer.
        peer: SocketAddr,
        /// What the kernel says.
        source: io::Error,
    },
    /// The interfaces can't be listed, or none has the address.
    #[error("no interface has the address {0}, from which {1} is reached; give --interface")]
    Unknown(IpAddr, SocketAddr),
    /// Two peers are reached through two interfaces.
    #[error(
        "some replicas are reached through {0} and some through {1}; the fast path uses one: give --interface"
    )]
    Several(String, String),
}

/// The interface through which every other replica is reached from `own`.
pub(crate) fn find(own: usize, replicas: &[SocketAddr]) -> Result<String, InterfaceError> {
    let mut found: Option<String> = None;
    for (index, peer) in replicas.iter().enumerate() {
        if index == own {
            continue;
        }
        let name = towards(*peer)?;
        match found {
            Some(other) if other != name => return Err(InterfaceError::Several(other, name)),
            _ => found = Some(name),
        }
    }
    found.ok_or(InterfaceError::Alone)
}

fn towards(peer: SocketAddr) -> Result<String, InterfaceError> {
    let any: IpAddr = if peer.is_ipv4() {
        [0, 0, 0, 0].into()
    } else {
        [0_u16; 8].into()
    };
    let local = UdpSocket::bind((any, 0))
        .and_then(|socket| socket.connect(peer).and_then(|()| socket.local_addr()))
        .map_err(|source| InterfaceError::NoRoute { peer, source })?
        .ip();
    let unknown = || InterfaceError::Unknown(local, peer);
    let mut name = None;
    for interface in getifaddrs().map_err(|_| unknown())? {
        let address = interface.address.as_ref().and_then(ip);
        if address == Some(peer.ip()) {
            return Err(InterfaceError::Local(peer));
        }
        if address == Some(local) {
            name = Some(interface.interface_name);
        }
    }
    if peer.ip().is_loopback() {
        return Err(InterfaceError::Local(peer));
    }
    name.ok_or_else(unknown)
}

/// The interface's MTU in bytes; 1500 where it can't be read.
pub(crate) fn mtu(interface: &str) -> usize {
    let read = fs::read_to_string(format!("/sys/class/net/{interface}/mtu"));
    read.ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1500)
}

fn ip(storage: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = storage
        .as_sockaddr_in()
        .map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| {
        storage
            .as_sockaddr_in6()
            .map(|address| IpAddr::V6(address.ip()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_on_loopback_has_no_interface_to_accelerate() {
        let replicas: Vec<SocketAddr> = (1..=3)
            .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
            .collect();
        assert!(
            matches!(find(0, &replicas), Err(InterfaceError::Local(peer)) if peer == replicas[1])
        );
    }

    #[test]
    fn a_group_of_one_has_nobody_to_reach() {
        let replicas = [SocketAddr::from(([127, 0, 0, 1], 1))];
        assert!(matches!(find(0, &replicas), Err(InterfaceError::Alone)));
    }

    #[test]
    fn the_mtu_of_an_unknown_interface_is_the_usual_one() {
        assert_eq!(mtu("no-such-interface"), 1500);
        assert!(mtu("lo") > 1500);
    }
}
