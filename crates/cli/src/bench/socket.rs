//! The socket of all clients, in batches: one system call receives or sends many datagrams, into buffers that stay.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg, setsockopt, sockopt,
};

/// Datagrams in one system call.
const BATCH: usize = 32;

/// The longest that [`Receiver::receive`] waits.
pub(super) const PATIENCE: Duration = Duration::from_millis(10);

/// What the socket may hold back in each direction, in bytes, as far as the system allows.
const SOCKET_BYTES: usize = 4 << 20;

/// The receiving half.
pub(super) struct Receiver {
    socket: Arc<UdpSocket>,
    headers: MultiHeaders<SockaddrStorage>,
    bytes: Vec<u8>,
    /// Room for one datagram.
    slot: usize,
    received: [(usize, Option<SocketAddr>); BATCH],
}

/// The sending half.
pub(super) struct Sender {
    socket: Arc<UdpSocket>,
    replicas: Vec<SockaddrStorage>,
    headers: MultiHeaders<SockaddrStorage>,
    datagrams: [Vec<u8>; BATCH],
    to: [Option<SockaddrStorage>; BATCH],
    waiting: usize,
}

/// A socket for talking to these replicas; `slot` is the length of the longest reply.
pub(super) fn open(replicas: &[SocketAddr], slot: usize) -> io::Result<(Receiver, Sender)> {
    let local: SocketAddr = match replicas.first() {
        Some(SocketAddr::V6(_)) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        _ => (Ipv4Addr::UNSPECIFIED, 0).into(),
    };
    let socket = Arc::new(UdpSocket::bind(local)?);
    socket.set_read_timeout(Some(PATIENCE))?;
    setsockopt(&socket, sockopt::RcvBuf, &SOCKET_BYTES)?;
    setsockopt(&socket, sockopt::SndBuf, &SOCKET_BYTES)?;
    let receiver = Receiver {
        socket: socket.clone(),
        headers: MultiHeaders::preallocate(BATCH, None),
        bytes: vec![0; slot * BATCH],
        slot,
        received: [(0, None); BATCH],
    };
    let sender = Sender {
        socket,
        replicas: replicas
            .iter()
            .map(|address| SockaddrStorage::from(*address))
            .collect(),
        headers: MultiHeaders::preallocate(BATCH, None),
        datagrams: [const { Vec::new() }; BATCH],
        to: [None; BATCH],
        waiting: 0,
    };
    Ok((receiver, sender))
}

impl Receiver {
    /// Waits for a datagram, for [`PATIENCE`] at most, and takes with it what else there is, one batch at most; says how
    /// many it took. Waiting in the receiving call itself spares a call to an epoll, and its wake-up, per answer.
    pub(super) fn receive(&mut self) -> io::Result<usize> {
        let mut slots = self.bytes.chunks_exact_mut(self.slot);
        let mut slices: [[IoSliceMut<'_>; 1]; BATCH] =
            std::array::from_fn(|_| [IoSliceMut::new(slots.next().unwrap_or_default())]);
        let fd = self.socket.as_raw_fd();
        match recvmmsg(
            fd,
            &mut self.headers,
            slices.iter_mut(),
            MsgFlags::MSG_WAITFORONE,
            None,
        ) {
            Ok(messages) => {
                let mut count = 0;
                for (message, received) in messages.zip(&mut self.received) {
                    *received = (message.bytes, message.address.as_ref().and_then(address));
                    count += 1;
                }
                Ok(count)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// One datagram of the last batch, and where it came from.
    pub(super) fn datagram(&self, index: usize) -> (Option<SocketAddr>, &[u8]) {
        let (length, from) = self.received[index];
        (
            from,
            &self.bytes[index * self.slot..][..length.min(self.slot)],
        )
    }
}

impl Sender {
    /// Puts a datagram into the batch, which leaves when it is full or at [`Sender::flush`].
    pub(super) fn push(&mut self, replica: usize, write: impl FnOnce(&mut Vec<u8>)) {
        if self.waiting == BATCH {
            self.flush();
        }
        write(&mut self.datagrams[self.waiting]);
        self.to[self.waiting] = Some(self.replicas[replica]);
        self.waiting += 1;
    }

    /// Sends the batch. What the system doesn't take is lost, as it might be on any network: it will be sent again.
    pub(super) fn flush(&mut self) {
        let mut first = 0;
        while first < self.waiting {
            let slices: [[IoSlice<'_>; 1]; BATCH] =
                std::array::from_fn(|index| [IoSlice::new(&self.datagrams[index])]);
            let range = first..self.waiting;
            let sent = sendmmsg(
                self.socket.as_raw_fd(),
                &mut self.headers,
                &slices[range.clone()],
                &self.to[range],
                [],
                MsgFlags::MSG_DONTWAIT,
            );
            first += match sent {
                Ok(sent) => sent.count().max(1),
                Err(Errno::EINTR) => 0,
                // The first of the batch can't be sent; the others may.
                Err(_) => 1,
            };
        }
        self.waiting = 0;
    }
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage
        .as_sockaddr_in()
        .map(|v4| SocketAddr::V4(SocketAddrV4::from(*v4)));
    v4.or_else(|| {
        storage
            .as_sockaddr_in6()
            .map(|v6| SocketAddr::V6(SocketAddrV6::from(*v6)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_arrive_whole_and_in_order() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let peer = UdpSocket::bind(local).unwrap();
            let address = peer.local_addr().unwrap();
            let (mut receiver, mut sender) = open(&[address], 100).unwrap();
            let count = BATCH + 5;
            for number in 0..count {
                sender.push(0, |datagram| {
                    datagram.clear();
                    datagram.extend_from_slice(&[number as u8; 40]);
                });
            }
            sender.flush();
            let mut buffer = [0; 100];
            for number in 0..count {
                let (length, from) = peer.recv_from(&mut buffer).unwrap();
                assert_eq!(&buffer[..length], [number as u8; 40]);
                peer.send_to(&buffer[..number], from).unwrap();
            }
            let mut seen = 0;
            while seen < count {
                let received = receiver.receive().unwrap();
                assert!(received > 0, "{seen} of {count} have come");
                for index in 0..received {
                    assert_eq!(
                        receiver.datagram(index),
                        (Some(address), &vec![seen as u8; seen][..])
                    );
                    seen += 1;
                }
            }
            assert_eq!(receiver.receive().unwrap(), 0);
        }
    }
}
