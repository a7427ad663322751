//! The replica's one UDP socket: datagrams in and out by the batch, without allocating for each.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use electrode_driver::BATCH;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};
use rustix::net::sockopt;

use crate::calls::counted;

/// Room for the longest datagram. Pages that no datagram reaches are never touched.
const BUFFER_BYTES: usize = 1 << 16;

/// What the kernel is asked to queue, in bytes: a burst of requests must outlast one turn of the loop.
const QUEUE_BYTES: usize = 4 << 20;

/// The socket, its receive buffers and its outbox.
pub(crate) struct Socket {
    socket: UdpSocket,
    receive: MultiHeaders<SockaddrStorage>,
    buffers: Box<[u8]>,
    received: Vec<(usize, Option<SocketAddr>)>,
    send: MultiHeaders<SockaddrStorage>,
    /// Encoded messages; the first `composed` are in use.
    messages: Vec<Vec<u8>>,
    composed: usize,
    /// Which message goes to the address of the same position, in order.
    outbox: Vec<usize>,
    addresses: Vec<Option<SockaddrStorage>>,
    /// What happened so far.
    pub(crate) counts: SocketCounts,
}

/// Totals since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SocketCounts {
    pub(crate) packets_in: u64,
    pub(crate) packets_out: u64,
    /// Datagrams that the kernel refused to send at that moment.
    pub(crate) send_full: u64,
    /// Datagrams that the kernel refused to send to that address.
    pub(crate) send_failed: u64,
}

impl Socket {
    /// Binds `address`.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Socket> {
        let socket = UdpSocket::bind(address)?;
        // Large queues are a help, not a need: the limits of the system may say no.
        let _ = sockopt::set_socket_recv_buffer_size_force(&socket, QUEUE_BYTES)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, QUEUE_BYTES));
        let _ = sockopt::set_socket_send_buffer_size(&socket, QUEUE_BYTES);
        Ok(Socket {
            socket,
            receive: MultiHeaders::preallocate(BATCH, None),
            buffers: vec![0; BATCH * BUFFER_BYTES].into_boxed_slice(),
            received: Vec::with_capacity(BATCH),
            send: MultiHeaders::preallocate(BATCH, None),
            messages: vec![Vec::new(); BATCH],
            composed: 0,
            outbox: Vec::with_capacity(BATCH),
            addresses: Vec::with_capacity(BATCH),
            counts: SocketCounts::default(),
        })
    }

    /// Receives what is there, up to [`BATCH`] datagrams, and returns how many; fewer than that means drained.
    pub(crate) fn receive(&mut self) -> Result<usize, Errno> {
        let Socket {
            socket,
            receive,
            buffers,
            received,
            ..
        } = self;
        received.clear();
        let mut chunks = buffers.chunks_exact_mut(BUFFER_BYTES);
        let mut slices: [[IoSliceMut<'_>; 1]; BATCH] = std::array::from_fn(|_| {
            [IoSliceMut::new(
                chunks.next().expect("there are BATCH buffers"),
            )]
        });
        let fd = socket.as_raw_fd();
        match counted(|| recvmmsg(fd, receive, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None)) {
            Ok(results) => received
                .extend(results.map(|message| (message.bytes, message.address.and_then(address)))),
            // Not an error of the socket: an earlier datagram found nobody, or a signal came.
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => {}
            Err(errno) => return Err(errno),
        }
        self.counts.packets_in += self.received.len() as u64;
        Ok(self.received.len())
    }

    /// The `index`-th datagram of the last batch and where it came from.
    pub(crate) fn datagram(&self, index: usize) -> (&[u8], Option<SocketAddr>) {
        let (length, source) = self.received[index];
        (&self.buffers[index * BUFFER_BYTES..][..length], source)
    }

    /// Writes a message that is to be sent; [`Socket::send_to`] then says to whom.
    pub(crate) fn compose(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.composed == BATCH {
            self.flush();
        }
        write(&mut self.messages[self.composed]);
        self.composed += 1;
    }

    /// Sends the message that was composed last; it leaves with [`Socket::flush`] at the latest.
    pub(crate) fn send_to(&mut self, to: SockaddrStorage) {
        if self.outbox.len() == BATCH {
            let last = self.composed - 1;
            self.flush();
            self.messages.swap(0, last);
            self.composed = 1;
        }
        self.outbox.push(self.composed - 1);
        self.addresses.push(Some(to));
    }

    /// Sends everything that is waiting, in order. Returns how many datagrams left.
    pub(crate) fn flush(&mut self) -> usize {
        if self.outbox.is_empty() {
            self.composed = 0;
            return 0;
        }
        let Socket {
            socket,
            send,
            messages,
            outbox,
            addresses,
            counts,
            ..
        } = self;
        let mut slices = [[IoSlice::new(&[])]; BATCH];
        for (slice, message) in slices.iter_mut().zip(outbox.iter()) {
            *slice = [IoSlice::new(&messages[*message])];
        }
        let total = outbox.len();
        let mut done = 0;
        let mut left = 0;
        while done < total {
            let fd = socket.as_raw_fd();
            let waiting = (slices[done..total].iter(), &addresses[done..total]);
            match counted(|| sendmmsg(fd, send, waiting.0, waiting.1, [], MsgFlags::MSG_DONTWAIT)) {
                Ok(results) => {
                    let sent = results.count();
                    done += sent;
                    left += sent;
                }
                Err(Errno::EINTR) => {}
                // The protocol is made for loss; waiting here would stop heartbeats too.
                Err(Errno::EAGAIN | Errno::ENOBUFS) => {
                    counts.send_full += (total - done) as u64;
                    done = total;
                }
                Err(errno) => {
                    tracing::debug!(
                        "sending to {:?}: {errno}",
                        addresses[done].and_then(address)
                    );
                    counts.send_failed += 1;
                    done += 1;
                }
            }
        }
        counts.packets_out += left as u64;
        self.outbox.clear();
        self.addresses.clear();
        self.composed = 0;
        left
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn address(storage: SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage
        .as_sockaddr_in()
        .map(|address| SocketAddr::V4(SocketAddrV4::from(*address)));
    v4.or_else(|| {
        storage
            .as_sockaddr_in6()
            .map(|address| SocketAddr::V6(SocketAddrV6::from(*address)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(local: &str) -> (Socket, Socket, SockaddrStorage, SocketAddr) {
        let sender = Socket::bind(local.parse().unwrap()).unwrap();
        let receiver = Socket::bind(local.parse().unwrap()).unwrap();
        let to = receiver.socket.local_addr().unwrap();
        let from = sender.socket.local_addr().unwrap();
        (sender, receiver, to.into(), from)
    }

    #[test]
    fn datagrams_of_every_kind_of_length_arrive_in_order_from_their_source() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let (mut sender, mut receiver, to, from) = pair(local);
            let lengths = [0, 1, 79, 80, 1472, 1473, 65507 - 20];
            for length in lengths {
                sender.compose(|message| {
                    message.clear();
                    message.resize(length, length as u8);
                });
                sender.send_to(to);
            }
            assert_eq!(sender.flush(), lengths.len());
            assert_eq!(receiver.receive(), Ok(lengths.len()));
            for (index, length) in lengths.into_iter().enumerate() {
                let (bytes, source) = receiver.datagram(index);
                assert_eq!((bytes.len(), source), (length, Some(from)));
                assert!(bytes.iter().all(|byte| *byte == length as u8));
            }
            assert_eq!(receiver.receive(), Ok(0));
        }
    }

    #[test]
    fn an_outbox_that_overflows_in_the_middle_of_a_message_keeps_order_and_content() {
        let (mut sender, mut receiver, to, _) = pair("127.0.0.1:0");
        for number in 0..30_u8 {
            sender.compose(|message| {
                message.clear();
                message.push(number);
            });
            for _ in 0..5 {
                sender.send_to(to);
            }
        }
        sender.flush();
        let mut seen = Vec::new();
        while receiver.receive().unwrap() > 0 {
            seen.extend((0..receiver.received.len()).map(|index| receiver.datagram(index).0[0]));
        }
        assert_eq!(
            seen,
            (0..30).flat_map(|number| [number; 5]).collect::<Vec<u8>>()
        );
    }

    #[test]
    fn a_destination_that_fails_takes_no_other_datagram_along() {
        let (mut sender, mut receiver, to, _) = pair("127.0.0.1:0");
        sender.compose(|message| message.push(7));
        // A broadcast address needs SO_BROADCAST, which this socket doesn't have.
        let refused = SockaddrStorage::from("255.255.255.255:9".parse::<SocketAddr>().unwrap());
        for to in [to, refused, to] {
            sender.send_to(to);
        }
        assert_eq!(sender.flush(), 2);
        assert_eq!(
            (sender.counts.send_failed, sender.counts.packets_out),
            (1, 2)
        );
        assert_eq!(receiver.receive(), Ok(2));
    }
}
