//! Asks replicas how they are, over the network, as `electrode status` does.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use electrode_lab::Host;
use electrode_replica::StatusReport;
use electrode_vr::{GroupId, Nonce};
use electrode_wire::{CLIENT, Envelope, Key, MAX_DATAGRAM, Packet, decode, encode};

/// How long an answer may take. It comes from the same machine.
const PATIENCE: Duration = Duration::from_millis(500);

/// Asks every replica from `host`; None for those that don't answer.
pub(super) fn ask(host: &Host, replicas: &[SocketAddr]) -> Result<Vec<Option<StatusReport>>> {
    host.in_namespace(|| exchange(replicas))?
        .context("asking the replicas for their status")
}

fn exchange(replicas: &[SocketAddr]) -> std::io::Result<Vec<Option<StatusReport>>> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let envelope = Envelope {
        group: GroupId(0),
        epoch: 0,
        sender: CLIENT,
        flags: 0,
    };
    let mut message = Vec::new();
    for (index, replica) in replicas.iter().enumerate() {
        let nonce = Nonce(index as u64);
        encode(
            &envelope,
            &Key::UNKEYED,
            &Packet::StatusRequest { nonce },
            &mut message,
        );
        // A replica that isn't there yet refuses the datagram: it doesn't answer, that is all.
        let _ = socket.send_to(&message, replica);
    }
    let mut reports = vec![None; replicas.len()];
    let mut buffer = vec![0; MAX_DATAGRAM];
    let deadline = Instant::now() + PATIENCE;
    while reports.iter().any(Option::is_none) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        socket.set_read_timeout(Some(left))?;
        let Ok((length, source)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let Some(index) = replicas.iter().position(|replica| *replica == source) else {
            continue;
        };
        let bytes = buffer.get(..length).unwrap_or_default();
        if let Ok((_, Packet::StatusReply { body, .. })) = decode(bytes, &Key::UNKEYED) {
            reports[index] = serde_json::from_slice(&body).ok();
        }
    }
    Ok(reports)
}
