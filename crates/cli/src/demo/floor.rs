//! The floor: what the network between the same hosts takes without any protocol.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use electrode_lab::Host;

use super::echo;
use super::place::Place;
use super::report::Floor;

/// The echoing port.
const PORT: u16 = 7078;

/// Bytes of a datagram.
const SIZE: usize = 64;

/// Round trips per figure; the first tenth warms up.
const ROUND_TRIPS: usize = 5000;

/// How long one round trip may take before the datagram counts as lost.
const PATIENCE: Duration = Duration::from_millis(200);

/// How both ends wait.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Blocking,
    Polling,
}

/// Measures round trips between the client and the first replica's host.
pub(super) fn measure(place: &Place) -> Result<Floor> {
    let server = place.hosts.first().context("a replica's host")?;
    let client = &place.client;
    let udp_blocking_us = between(client, server, Waiting::Blocking)?;
    let udp_polling_us = between(client, server, Waiting::Polling)?;
    let xdp_echo_us = if place.accelerates() {
        let echo = server.attach(echo::program(PORT)?)?;
        let target = (server.ip(), PORT).into();
        let median = client.in_namespace(|| median_us(target, Waiting::Blocking))??;
        drop(echo);
        Some(median)
    } else {
        None
    };
    Ok(Floor {
        udp_blocking_us,
        udp_polling_us,
        xdp_echo_us,
    })
}

/// The median with an echoing thread on `server`.
fn between(client: &Host, server: &Host, waiting: Waiting) -> Result<f64> {
    let target: SocketAddr = (server.ip(), PORT).into();
    let socket = server.in_namespace(|| UdpSocket::bind(target))??;
    prepare(&socket, waiting)?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let echo = scope.spawn(|| answer(&socket, &done));
        let median = client.in_namespace(|| median_us(target, waiting));
        done.store(true, Ordering::Relaxed);
        let echoed = echo.join();
        let median = median??;
        echoed
            .map_err(|_| io::Error::other("the echoing thread panicked"))?
            .context("echoing")?;
        Ok(median)
    })
}

/// Sends back what comes, until `done`.
fn answer(socket: &UdpSocket, done: &AtomicBool) -> io::Result<()> {
    let mut buffer = [0; 2 * SIZE];
    while !done.load(Ordering::Relaxed) {
        match socket.recv_from(&mut buffer) {
            Ok((length, source)) => drop(socket.send_to(&buffer[..length], source)?),
            Err(error) if nothing_yet(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The median round trip to `target`, in microseconds.
fn median_us(target: SocketAddr, waiting: Waiting) -> Result<f64> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(target)?;
    prepare(&socket, waiting)?;
    let mut trips = Vec::with_capacity(ROUND_TRIPS);
    let mut lost = 0;
    for number in 0..ROUND_TRIPS {
        match round_trip(&socket, number)? {
            Some(trip) if number >= ROUND_TRIPS / 10 => trips.push(trip),
            Some(_) => {}
            None => lost += 1,
        }
        if lost > 20 {
            anyhow::bail!("datagrams to {target} don't come back");
        }
    }
    trips.sort_unstable();
    let median = trips
        .get(trips.len() / 2)
        .context("no datagram came back")?;
    Ok(median.as_secs_f64() * 1e6)
}

/// How long this datagram took; None when it was lost.
fn round_trip(socket: &UdpSocket, number: usize) -> io::Result<Option<Duration>> {
    let mut message = [0; SIZE];
    message[..8].copy_from_slice(&(number as u64).to_le_bytes());
    let mut answer = [0; 2 * SIZE];
    let sent = Instant::now();
    socket.send(&message)?;
    loop {
        match socket.recv(&mut answer) {
            // Anything else is a late answer to an earlier one.
            Ok(length) if answer[..length] == message => return Ok(Some(sent.elapsed())),
            Ok(_) => {}
            Err(error) if nothing_yet(&error) => {}
            Err(error) => return Err(error),
        }
        if sent.elapsed() > PATIENCE {
            return Ok(None);
        }
    }
}

fn prepare(socket: &UdpSocket, waiting: Waiting) -> io::Result<()> {
    match waiting {
        Waiting::Blocking => socket.set_read_timeout(Some(PATIENCE)),
        Waiting::Polling => socket.set_nonblocking(true),
    }
}

/// Nothing has come, or nobody was there yet to take the last one.
fn nothing_yet(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::ConnectionRefused
    )
}
