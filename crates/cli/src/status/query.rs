//! Asking all replicas at once, and waiting a bounded time.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use electrode_vr::{GroupId, Nonce};
use electrode_wire::{CLIENT, Envelope, Key, MAX_DATAGRAM, Packet, decode, encode};

use super::Answer;

/// Questions to each replica within the patience: the first may get lost.
const ROUNDS: u32 = 2;

/// Asks everybody; returns one answer per address, in order.
pub(super) fn ask(addresses: &[SocketAddr], patience: Duration) -> io::Result<Vec<Answer>> {
    let nonce = Nonce(RandomState::new().build_hasher().finish());
    let envelope = Envelope {
        group: GroupId(0),
        epoch: 0,
        sender: CLIENT,
        flags: 0,
    };
    let mut question = Vec::new();
    encode(
        &envelope,
        &Key::UNKEYED,
        &Packet::StatusRequest { nonce },
        &mut question,
    );

    let ipv4 = addresses.first().is_none_or(SocketAddr::is_ipv4);
    let any: IpAddr = if ipv4 {
        [0; 4].into()
    } else {
        [0_u16; 8].into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    let no_answer = format!("no answer in {} ms", patience.as_millis());
    let mut reports: Vec<_> = addresses.iter().map(|_| Err(no_answer.clone())).collect();
    let mut buffer = vec![0; MAX_DATAGRAM];
    for _ in 0..ROUNDS {
        for (address, report) in addresses
            .iter()
            .zip(&mut reports)
            .filter(|(_, report)| report.is_err())
        {
            if let Err(error) = socket.send_to(&question, address) {
                *report = Err(error.to_string());
            }
        }
        let until = Instant::now() + patience / ROUNDS;
        while reports.iter().any(Result::is_err) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            socket.set_read_timeout(Some(left))?;
            let Ok((length, source)) = socket.recv_from(&mut buffer) else {
                continue;
            };
            let from = |address: &SocketAddr| {
                (address.ip(), address.port()) == (source.ip(), source.port())
            };
            let Some(index) = addresses.iter().position(from) else {
                continue;
            };
            match decode(&buffer[..length], &Key::UNKEYED) {
                Ok((
                    _,
                    Packet::StatusReply {
                        nonce: answered,
                        body,
                    },
                )) if answered == nonce => {
                    reports[index] = serde_json::from_slice(&body)
                        .map_err(|error| format!("its answer is of another version ({error})"));
                }
                Ok(_) => {}
                Err(error) => reports[index] = Err(format!("its answer can't be read: {error}")),
            }
        }
    }
    let answers = addresses.iter().zip(reports).enumerate();
    let answers = answers.map(|(index, (address, report))| Answer {
        index,
        address: address.to_string(),
        report,
    });
    Ok(answers.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use electrode_replica::StatusReport;
    use std::thread;

    #[test]
    fn who_answers_is_told_from_who_does_not() {
        let replica = UdpSocket::bind("127.0.0.1:0").unwrap();
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addresses = [replica.local_addr().unwrap(), silent.local_addr().unwrap()];
        let answering = thread::spawn(move || {
            let mut buffer = [0; 2048];
            let (length, from) = replica.recv_from(&mut buffer).unwrap();
            let Ok((_, Packet::StatusRequest { nonce })) = decode(&buffer[..length], &Key::UNKEYED)
            else {
                panic!("not a status request");
            };
            let envelope = Envelope {
                group: GroupId(1),
                epoch: 0,
                sender: 0,
                flags: 0,
            };
            let report = StatusReport {
                commit: 7,
                ..StatusReport::default()
            };
            let mut reply = Vec::new();
            // An answer to an older question says nothing.
            for (nonce, commit) in [(Nonce(nonce.0 ^ 1), 6), (nonce, 7)] {
                let body = serde_json::to_vec(&StatusReport {
                    commit,
                    ..report.clone()
                })
                .unwrap();
                encode(
                    &envelope,
                    &Key::UNKEYED,
                    &Packet::StatusReply { nonce, body },
                    &mut reply,
                );
                replica.send_to(&reply, from).unwrap();
            }
        });
        let answers = ask(&addresses, Duration::from_millis(200)).unwrap();
        answering.join().unwrap();
        assert_eq!(answers[0].report.as_ref().unwrap().commit, 7);
        assert_eq!(
            answers[1].report.as_ref().unwrap_err(),
            "no answer in 200 ms"
        );
    }
}
