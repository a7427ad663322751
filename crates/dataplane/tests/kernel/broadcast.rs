//! `broadcast` on the primary's egress: one message in, a copy per backup out. The copies really leave, so this is between
//! network namespaces.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use electrode_dataplane::{Dataplane, Hook, Options, Programs};
use electrode_lab::{Host, Lab, root_or_skip};
use electrode_vr::{OpNumber, ReplicaId, View};
use electrode_wire::FLAG_BROADCAST;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::frame::{Frame, TAG_8021AD, TAG_8021Q, finish_sum};
use crate::group::{GROUP, KEY, VIEW, prepare, sign};
use crate::shadow::Shadow;

/// Replicas that have a host; one more is configured, and nobody has its address.
const HOSTS: usize = 4;
const PORT: u16 = 7100;
const TC_ACT_OK: u32 = 0;

/// A primary and its backups.
struct Net {
    hosts: Vec<Host>,
    addresses: Vec<SocketAddr>,
    /// Every backup's socket.
    sockets: Vec<UdpSocket>,
    /// Every backup's view of its wire.
    wires: Vec<OwnedFd>,
    _lab: Lab,
}

impl Net {
    fn new(v6: bool) -> Net {
        let lab = Lab::new("broadcast").expect("a lab");
        let hosts: Vec<Host> = (0..HOSTS)
            .map(|index| lab.host(&format!("r{index}")).expect("a host"))
            .collect();
        let mut addresses: Vec<SocketAddr> = (0..)
            .zip(&hosts)
            .map(|(index, host)| {
                let ip: IpAddr = if v6 {
                    host.ipv6().into()
                } else {
                    host.ipv4().into()
                };
                // Ports that differ, so that a copy to the wrong one is seen.
                SocketAddr::new(ip, PORT + index)
            })
            .collect();
        let nobody: IpAddr = if v6 {
            Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 99).into()
        } else {
            Ipv4Addr::new(10, 77, 0, 99).into()
        };
        addresses.push(SocketAddr::new(nobody, PORT));
        let backups = || hosts.iter().zip(&addresses).skip(1);
        let sockets = backups()
            .map(|(host, address)| {
                let socket = host.in_namespace(|| UdpSocket::bind(address));
                let socket = socket.expect("a namespace").expect("a socket");
                socket
                    .set_read_timeout(Some(Duration::from_millis(300)))
                    .expect("a time-out");
                socket
            })
            .collect();
        let wires = backups()
            .map(|(host, _)| host.in_namespace(wire).expect("a namespace"))
            .collect();
        Net {
            hosts,
            addresses,
            sockets,
            wires,
            _lab: lab,
        }
    }

    /// Attaches `broadcast` alone and waits until every backup that exists is known.
    fn attach(&self) -> Dataplane {
        let mut dataplane = Dataplane::attach(&Options {
            interface: "eth0".to_owned(),
            programs: Programs {
                broadcast: true,
                ..Programs::default()
            },
            allow_generic: false,
            index: ReplicaId(0),
            replicas: self.addresses.clone(),
            key: KEY.0,
        })
        .expect("broadcast can be attached");
        assert!([Hook::Tcx, Hook::Clsact].contains(&dataplane.attachment().tc));
        assert_eq!(dataplane.attachment().xdp, Hook::Off);
        dataplane.set_group(GROUP);
        dataplane.arm(View(VIEW), true, OpNumber(0));
        let began = Instant::now();
        loop {
            dataplane.refresh_neighbours();
            dataplane.on_netlink();
            let mut plain = Vec::new();
            let carrier = dataplane.carrier(&mut plain);
            if carrier == Some(ReplicaId(1)) && plain == [ReplicaId(HOSTS as u8)] {
                return dataplane;
            }
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "neighbours: {carrier:?} and not {plain:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Demands that exactly these backups get this message, once, on their sockets and on their wires.
    #[track_caller]
    fn got(&self, who: &[usize], message: &[u8]) {
        for (index, (socket, wire)) in (1..).zip(self.sockets.iter().zip(&self.wires)) {
            let mut buffer = vec![0; 2000];
            if who.contains(&index) {
                let (length, from) = socket.recv_from(&mut buffer).expect("a datagram");
                assert_eq!((&buffer[..length], from), (message, self.addresses[0]));
            }
            socket.set_nonblocking(true).expect("a flag");
            assert!(
                socket.recv_from(&mut buffer).is_err(),
                "r{index} got more than it should"
            );
            socket.set_nonblocking(false).expect("a flag");
            let frames: Vec<Frame> = captured(wire)
                .iter()
                .map(|bytes| Frame::parse(&finish_sum(bytes)))
                .collect();
            let expected = Frame {
                to_mac: self.hosts[index].mac(),
                from_mac: self.hosts[0].mac(),
                tags: Vec::new(),
                from: self.addresses[0],
                to: self.addresses[index],
                payload: message.to_vec(),
            };
            let copies = usize::from(who.contains(&index));
            assert_eq!(frames, vec![expected; copies], "on the wire of r{index}");
        }
    }
}

/// Sees every frame of this namespace.
fn wire() -> OwnedFd {
    let wire = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::EthAll,
    )
    .expect("a packet socket");
    setsockopt(&wire, sockopt::ReceiveTimeout, &TimeVal::new(0, 50_000)).expect("a time-out");
    wire
}

/// The frames since the last call that carry messages of ours.
fn captured(wire: &OwnedFd) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut buffer = vec![0; 4000];
    while let Ok(length) = recv(wire.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
        if buffer[..length].windows(4).any(|bytes| bytes == b"ELCT") {
            frames.push(buffer[..length].to_vec());
        }
    }
    frames
}

/// The counters of `broadcast` that aren't 0.
fn counted(dataplane: &Dataplane) -> Vec<(&'static str, u64)> {
    let counters = dataplane.counters().expect("the counters can be read");
    counters
        .iter()
        .filter(|counter| counter.program == "broadcast" && counter.value > 0)
        .map(|counter| (counter.name, counter.value))
        .collect()
}

/// A message with the flag.
fn flagged(mut message: Vec<u8>) -> Vec<u8> {
    message[7] |= FLAG_BROADCAST;
    sign(&mut message);
    message
}

#[test]
fn a_copy_reaches_every_backup_over_ipv4() {
    if root_or_skip("broadcast between namespaces") {
        a_copy_reaches_every_backup(false);
    }
}

#[test]
fn a_copy_reaches_every_backup_over_ipv6() {
    if root_or_skip("broadcast between namespaces") {
        a_copy_reaches_every_backup(true);
    }
}

fn a_copy_reaches_every_backup(v6: bool) {
    let net = Net::new(v6);
    let primary = net.hosts[0].clone();
    primary
        .in_namespace(|| {
            let dataplane = net.attach();
            let socket = UdpSocket::bind(net.addresses[0]).expect("a socket");
            net.wires.iter().for_each(|wire| drop(captured(wire)));

            // Whoever is the carrier, everybody gets one. The largest that fits too.
            let mut sent = 0;
            for (carrier, bytes) in [(1, 3), (2, 0), (3, 41), (1, 1340)] {
                let message = flagged(prepare(VIEW, 1, &[bytes]));
                socket
                    .send_to(&message, net.addresses[carrier])
                    .expect("it leaves");
                net.got(&[1, 2, 3], &message);
                sent += 1;
                assert_eq!(
                    counted(&dataplane),
                    [
                        ("handled", sent),
                        ("cloned", 2 * sent),
                        ("unresolved", sent)
                    ]
                );
            }
            let counters = counted(&dataplane);

            // Without the flag, from another port, or not ours: to whom it was sent.
            let message = prepare(VIEW, 1, &[3]);
            socket
                .send_to(&message, net.addresses[2])
                .expect("it leaves");
            net.got(&[2], &message);
            let other =
                UdpSocket::bind(SocketAddr::new(net.addresses[0].ip(), 0)).expect("a socket");
            other
                .send_to(&flagged(message.clone()), net.addresses[2])
                .expect("it leaves");
            let mut buffer = [0; 2000];
            net.sockets[1].recv(&mut buffer).expect("a datagram");
            let wires: Vec<usize> = net.wires.iter().map(|wire| captured(wire).len()).collect();
            assert_eq!(wires, [0, 1, 0]);
            socket
                .send_to(b"ELCTnonsense", net.addresses[3])
                .expect("it leaves");
            net.got(&[3], b"ELCTnonsense");
            assert_eq!(counted(&dataplane), counters);

            // Longer than a frame: IP cuts it up, and only the one that it was sent to gets it. (User space sends such
            // messages plainly.)
            let long = flagged(prepare(VIEW, 1, &[1900]));
            socket.send_to(&long, net.addresses[1]).expect("it leaves");
            let mut buffer = vec![0; 4000];
            let length = net.sockets[0].recv(&mut buffer).expect("a datagram");
            assert_eq!(buffer[..length], long);
            let wires: Vec<bool> = net
                .wires
                .iter()
                .map(|wire| captured(wire).is_empty())
                .collect();
            assert_eq!(wires, [false, true, true]);
            assert_eq!(counted(&dataplane), counters);

            // Detached with its owner.
            drop(dataplane);
            let message = flagged(prepare(VIEW, 1, &[3]));
            socket
                .send_to(&message, net.addresses[1])
                .expect("it leaves");
            net.got(&[1], &message);
        })
        .expect("the primary's namespace");
}

/// A frame whose sum the stack has finished itself, with VLAN tags or without: the copies' sums are right, and the frame goes
/// on as it came. Run by BPF_PROG_TEST_RUN, whose frames belong to the loopback device.
#[test]
fn copies_of_finished_frames_have_right_sums() {
    if !root_or_skip("broadcast between namespaces") {
        return;
    }
    for v6 in [false, true] {
        let net = Net::new(v6);
        let primary = net.hosts[0].clone();
        primary
            .in_namespace(|| {
                let dataplane = net.attach();
                let loopback = wire();
                let mut shadow = Shadow::new(Programs::default());
                for tags in [
                    &[][..],
                    &[(TAG_8021Q, 0x6005)],
                    &[(TAG_8021AD, 9), (TAG_8021Q, 7)],
                ] {
                    let frame = Frame {
                        to_mac: net.hosts[2].mac(),
                        from_mac: net.hosts[0].mac(),
                        tags: tags.to_vec(),
                        from: net.addresses[0],
                        to: net.addresses[2],
                        payload: flagged(prepare(VIEW, 1, &[30, 2])),
                    };
                    let bytes = frame.bytes();
                    let (ran, theirs) = shadow.broadcast(&dataplane, &bytes, || {
                        let runner = dataplane.runner();
                        runner.run("broadcast", &bytes).expect("it runs")
                    });
                    assert_eq!(ran.0, TC_ACT_OK);
                    assert_eq!(Frame::parse(&ran.1), frame);
                    assert!(ran.1 == bytes);
                    // Loopback shows what it sends also as received.
                    let copies: BTreeSet<Vec<u8>> = captured(&loopback).into_iter().collect();
                    // The other engines' are the same, to the byte.
                    assert_eq!(theirs.len(), 2);
                    assert!(theirs.iter().all(|copy| copies.contains(copy)));
                    let mut expected: Vec<Frame> = [1, 3]
                        .map(|index| Frame {
                            to_mac: net.hosts[index].mac(),
                            to: net.addresses[index],
                            ..frame.clone()
                        })
                        .into();
                    for copy in copies {
                        let copy = Frame::parse(&copy);
                        if copy.tags.len() < tags.len() {
                            // As received: the outermost tag is kept beside the frame there.
                            continue;
                        }
                        let at = expected.iter().position(|frame| *frame == copy);
                        expected.remove(at.unwrap_or_else(|| panic!("{copy:?}")));
                    }
                    assert!(expected.is_empty(), "not seen: {expected:?}");
                }
                assert_eq!(
                    counted(&dataplane),
                    [("handled", 3), ("cloned", 6), ("unresolved", 3)]
                );
            })
            .expect("the primary's namespace");
    }
}
