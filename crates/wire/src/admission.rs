//! The door for datagrams: what isn't from this group, of this version, whole, and from whom it says, goes no further,
//! is counted by reason, and the latest of each reason can be told to a person (protocol.md, rule 16).

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::header::EPOCH;
use crate::{DecodeError, Envelope, Packet};
use electrode_vr::{GroupId, Message, ReplicaId};

/// Why a datagram went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not a whole, undamaged message of our version and key.
    Undecodable(DecodeError),
    /// A replica or client of another group.
    WrongGroup {
        /// The sender's group.
        theirs: GroupId,
        /// This replica's group.
        ours: GroupId,
        /// Who sent it.
        sender: u8,
    },
    /// This replica doesn't know its group yet, and the sender is a step ahead: ordinary while a group starts.
    NoGroupYet {
        /// Who sent it.
        sender: u8,
    },
    /// Of another epoch: from a replica or client that knows of a change of membership.
    WrongEpoch {
        /// The sender's epoch.
        epoch: u32,
        /// Who sent it.
        sender: u8,
    },
    /// Says it is from a replica, but doesn't come from that replica's address.
    WrongSource {
        /// Who it says it is.
        sender: u8,
    },
    /// A kind that replicas don't receive.
    NotForReplicas,
    /// Status was asked for more often than it is answered.
    TooOften,
    /// Without a source there is no answer.
    NoSource,
}

impl Refusal {
    /// The reason's name in status and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Refusal::Undecodable(error) => match error {
                DecodeError::TooShort(_) => "too_short",
                DecodeError::WrongMagic(_) => "not_electrode",
                DecodeError::WrongVersion(_) => "wrong_version",
                DecodeError::WrongLength { .. } | DecodeError::TooLong(_) => "wrong_length",
                DecodeError::WrongCheck => "bad_check",
                DecodeError::WrongSender(_) => "wrong_sender",
                _ => "malformed",
            },
            Refusal::WrongGroup { .. } => "wrong_group",
            Refusal::NoGroupYet { .. } => "no_group_yet",
            Refusal::WrongEpoch { .. } => "wrong_epoch",
            Refusal::WrongSource { .. } => "wrong_source",
            Refusal::NotForReplicas => "not_for_replicas",
            Refusal::TooOften => "status_too_often",
            Refusal::NoSource => "no_source",
        }
    }

    /// Whether it says that something is wrong, rather than not ready.
    #[must_use]
    pub fn is_alarming(self) -> bool {
        !matches!(self, Refusal::NoGroupYet { .. })
    }

    /// For a person.
    #[must_use]
    pub fn describe(self, source: Option<SocketAddr>) -> String {
        let source = source.map_or_else(|| "nowhere".to_owned(), |source| source.to_string());
        match self {
            Refusal::Undecodable(error) => format!("from {source}: {error}"),
            Refusal::WrongGroup {
                theirs,
                ours,
                sender,
            } => {
                let who = who(sender);
                format!(
                    "from {source}: {who} of group {:016x}, but this is group {:016x}",
                    theirs.0, ours.0
                )
            }
            Refusal::WrongEpoch { epoch, sender } => {
                let who = who(sender);
                format!(
                    "from {source}: {who} in epoch {epoch} of its group's membership; this version knows only epoch {EPOCH}"
                )
            }
            Refusal::NoGroupYet { sender } => {
                format!("from {source}: replica {sender} knows its group, this one not yet")
            }
            Refusal::WrongSource { sender } => {
                format!(
                    "from {source}: says it is replica {sender}, which the configuration has at another address"
                )
            }
            Refusal::NotForReplicas => {
                format!("from {source}: a message that only clients receive")
            }
            Refusal::TooOften => format!("from {source}: asks for the status too often"),
            Refusal::NoSource => "a datagram without a source".to_owned(),
        }
    }
}

fn who(sender: u8) -> String {
    if sender == crate::CLIENT {
        "a client".to_owned()
    } else {
        format!("replica {sender}")
    }
}

/// What was refused so far: how often by reason, and the latest of each.
#[derive(Debug, Default)]
pub struct Refusals(BTreeMap<&'static str, (u64, Refused)>);

type Refused = Option<(Refusal, Option<SocketAddr>)>;

impl Refusals {
    /// Counts one; true when it is the first of its reason.
    pub fn count(&mut self, refusal: Refusal, source: Option<SocketAddr>) -> bool {
        let (count, latest) = self.0.entry(refusal.name()).or_default();
        *count += 1;
        *latest = Some((refusal, source));
        *count == 1
    }

    /// How often by reason.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.0
            .iter()
            .map(|(name, (count, _))| ((*name).to_owned(), *count))
            .collect()
    }

    /// One line per reason: the latest.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        let latest = self
            .0
            .iter()
            .filter_map(|(name, (_, latest))| Some((name, (*latest)?)))
            .filter(|(_, (refusal, _))| refusal.is_alarming());
        latest
            .map(|(name, (refusal, source))| format!("{name}: {}", refusal.describe(source)))
            .collect()
    }
}

/// Whether a decoded packet may reach the core of the replica `own` of `group`.
///
/// # Errors
/// Why it may not.
pub fn admit(
    envelope: &Envelope,
    packet: &Packet,
    source: SocketAddr,
    own: ReplicaId,
    group: GroupId,
    replicas: &[SocketAddr],
) -> Result<(), Refusal> {
    let wrong_group = || {
        let (theirs, sender) = (envelope.group, envelope.sender);
        if group == GroupId(0) {
            Refusal::NoGroupYet { sender }
        } else {
            Refusal::WrongGroup {
                theirs,
                ours: group,
                sender,
            }
        }
    };
    if envelope.epoch != EPOCH {
        return Err(Refusal::WrongEpoch {
            epoch: envelope.epoch,
            sender: envelope.sender,
        });
    }
    match packet {
        Packet::Message(message) => {
            let known = replicas
                .get(usize::from(envelope.sender))
                .filter(|_| envelope.sender != own.0);
            // Scope and flow label of IPv6 say nothing about who it is.
            if known.is_none_or(|known| (known.ip(), known.port()) != (source.ip(), source.port()))
            {
                return Err(Refusal::WrongSource {
                    sender: envelope.sender,
                });
            }
            let first_start = matches!(
                message,
                Message::Hello { .. } | Message::HelloOk { .. } | Message::Bootstrap { .. }
            );
            let unknown = envelope.group == GroupId(0) || group == GroupId(0);
            let fits = if unknown {
                first_start
            } else {
                envelope.group == group
            };
            if fits { Ok(()) } else { Err(wrong_group()) }
        }
        Packet::Request { .. } | Packet::StatusRequest { .. } => {
            let fits =
                envelope.group == GroupId(0) || group == GroupId(0) || envelope.group == group;
            if fits { Ok(()) } else { Err(wrong_group()) }
        }
        Packet::Reply { .. } | Packet::StatusReply { .. } => Err(Refusal::NotForReplicas),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use electrode_vr::{Nonce, OpNumber, View};

    const OWN: GroupId = GroupId(5);

    fn replicas() -> Vec<SocketAddr> {
        (0..3)
            .map(|index| SocketAddr::from(([10, 0, 0, index], 7000)))
            .collect()
    }

    fn envelope(group: u64, sender: u8) -> Envelope {
        Envelope {
            group: GroupId(group),
            epoch: 0,
            sender,
            flags: 0,
        }
    }

    fn commit() -> Packet {
        Packet::Message(Message::Commit {
            view: View(0),
            commit: OpNumber(0),
        })
    }

    fn hello() -> Packet {
        Packet::Message(Message::Hello {
            nonce: Nonce(1),
            group: GroupId(0),
        })
    }

    fn check(
        envelope: &Envelope,
        packet: &Packet,
        from: usize,
        group: GroupId,
    ) -> Result<(), &'static str> {
        let replicas = replicas();
        admit(
            envelope,
            packet,
            replicas[from],
            ReplicaId(0),
            group,
            &replicas,
        )
        .map_err(Refusal::name)
    }

    #[test]
    fn another_epoch_is_for_those_who_know_it() {
        let later = Envelope {
            epoch: 1,
            ..envelope(5, 1)
        };
        assert_eq!(check(&later, &commit(), 1, OWN), Err("wrong_epoch"));
        assert_eq!(check(&envelope(5, 1), &commit(), 1, OWN), Ok(()));
    }

    #[test]
    fn a_peer_is_known_by_its_address() {
        assert_eq!(check(&envelope(5, 1), &commit(), 1, OWN), Ok(()));
        assert_eq!(
            check(&envelope(5, 1), &commit(), 2, OWN),
            Err("wrong_source")
        );
        assert_eq!(
            check(&envelope(5, 0), &commit(), 0, OWN),
            Err("wrong_source"),
            "our own echo"
        );
        assert_eq!(
            check(&envelope(5, 3), &commit(), 1, OWN),
            Err("wrong_source"),
            "beyond the group"
        );
    }

    #[test]
    fn rule_16_only_the_first_start_speaks_without_a_group() {
        assert_eq!(
            check(&envelope(6, 1), &commit(), 1, OWN),
            Err("wrong_group")
        );
        assert_eq!(
            check(&envelope(0, 1), &commit(), 1, OWN),
            Err("wrong_group")
        );
        assert_eq!(
            check(&envelope(5, 1), &commit(), 1, GroupId(0)),
            Err("no_group_yet")
        );
        assert_eq!(check(&envelope(0, 1), &hello(), 1, OWN), Ok(()));
        assert_eq!(check(&envelope(6, 1), &hello(), 1, GroupId(0)), Ok(()));
        assert_eq!(check(&envelope(6, 1), &hello(), 1, OWN), Err("wrong_group"));
    }

    #[test]
    fn clients_need_no_group_but_may_not_name_another() {
        let status = Packet::StatusRequest { nonce: Nonce(1) };
        for (group, expected) in [(0, Ok(())), (5, Ok(())), (6, Err("wrong_group"))] {
            assert_eq!(
                check(&envelope(group, crate::CLIENT), &status, 2, OWN),
                expected
            );
        }
        let reply = Packet::StatusReply {
            nonce: Nonce(1),
            body: Vec::new(),
        };
        assert_eq!(
            check(&envelope(5, 1), &reply, 1, OWN),
            Err("not_for_replicas")
        );
    }

    #[test]
    fn rule_16_refusals_are_counted_and_the_latest_is_named() {
        let mut refusals = Refusals::default();
        let source = Some(replicas()[2]);
        assert!(refusals.count(
            Refusal::WrongGroup {
                theirs: GroupId(9),
                ours: OWN,
                sender: 1
            },
            source
        ));
        assert!(!refusals.count(
            Refusal::WrongGroup {
                theirs: GroupId(10),
                ours: OWN,
                sender: 2
            },
            source
        ));
        assert_eq!(
            refusals.counts(),
            BTreeMap::from([("wrong_group".to_owned(), 2)])
        );
        let expected = "wrong_group: from 10.0.0.2:7000: replica 2 of group 000000000000000a, but this is group 0000000000000005";
        assert_eq!(refusals.notices(), [expected]);
    }
}
