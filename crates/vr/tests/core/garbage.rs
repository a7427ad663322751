//! Messages that hold anything at all: never a panic, never a long loop, and every bound is kept.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use electrode_vr::{
    ClientId, Digest, Effect, FastPathCommand, FastPathEvent, GroupId, Input, Message, Nonce,
    OpNumber, Promise, ReplicaId, RequestNumber, Start, View,
};

use crate::support::*;

/// Inputs of one run at most.
const MOST_INPUTS: usize = 400;

/// Where choices come from.
enum Random<'d> {
    /// Numbers that a seed leads to, without an end.
    Seed(u64),
    /// A fuzzer's bytes, two for each choice, until there are no more.
    Bytes(&'d [u8]),
}

impl Random<'_> {
    fn next(&mut self) -> u64 {
        match self {
            Random::Seed(state) => {
                *state = state
                    .wrapping_mul(0x5851_f42d_4c95_7f2d)
                    .wrapping_add(0x1405_7b7e_f767_814f);
                *state >> 20 ^ *state << 24
            }
            Random::Bytes(bytes) => {
                let (taken, rest) = bytes.split_at(bytes.len().min(2));
                *bytes = rest;
                taken
                    .iter()
                    .fold(0, |word, byte| word << 8 | u64::from(*byte))
            }
        }
    }

    fn is_over(&self) -> bool {
        matches!(self, Random::Bytes([]))
    }

    /// Mostly small numbers, sometimes the ends of their range.
    fn number(&mut self) -> u64 {
        match self.next() % 12 {
            0 => u64::MAX,
            1 => OpNumber::LIMIT - self.next() % 3,
            2 => u64::MAX - self.next() % 70,
            3 => self.next(),
            _ => self.next() % 12,
        }
    }

    /// Any message; now and then one that answers a question of this replica, or that knows its view and log.
    fn message(&mut self, bench: &Bench) -> Message {
        let (now, nonces) = (bench.shows(), bench.replica.open_nonces());
        let view = match self.next() % 3 {
            0 => now.view,
            _ => View(self.number()),
        };
        let op = match self.next() % 4 {
            0 => now.op,
            1 => now.op.next(),
            _ => OpNumber(self.number()),
        };
        let commit = OpNumber(self.number());
        let nonce = match self.next() % 3 {
            0 => nonces.1.unwrap_or(nonces.0),
            1 => nonces.0,
            _ => Nonce(self.number()),
        };
        let digest = match self.next() % 3 {
            0 => now.log_digest,
            _ => Digest(self.number()),
        };
        let entries = (0..self.next() % 4)
            .map(|_| {
                entry(
                    self.number(),
                    self.number(),
                    &"x".repeat((self.next() % 9) as usize),
                )
            })
            .collect();
        match self.next() % 19 {
            0 | 1 => Message::Prepare(electrode_vr::Prepare {
                view,
                first: op,
                commit,
                entries,
            }),
            2 => Message::PrepareOk {
                view,
                op,
                last_op: commit,
            },
            3 => Message::Commit { view, commit },
            4 => Message::PreVote { view },
            5 => Message::PreVoteOk { view },
            6 => Message::StartViewChange { view },
            7 => {
                let last_normal = View(self.number());
                Message::DoViewChange {
                    view,
                    last_normal,
                    op,
                    commit,
                    digest,
                }
            }
            8 => Message::StartView {
                view,
                op,
                commit,
                digest,
            },
            9 => Message::GetState {
                view,
                nonce,
                after: op,
            },
            10 => {
                let (digest_after, after) = match self.next() % 3 {
                    0 => (now.log_digest, now.op),
                    _ => (Digest(self.number()), OpNumber(self.number())),
                };
                Message::NewState {
                    view,
                    nonce,
                    after,
                    digest_after,
                    entries,
                    op,
                    digest,
                    commit,
                }
            }
            11 => Message::CheckpointChunk {
                view,
                nonce,
                op,
                log_digest: digest,
                digest,
                total: self.number(),
                offset: self.number(),
                bytes: vec![0; (self.next() % 5) as usize],
            },
            12 => Message::GetCheckpoint {
                view,
                nonce,
                op,
                offset: self.number(),
            },
            13 => Message::Recovery {
                nonce,
                promised: view,
            },
            14 => Message::RecoveryResponse {
                nonce,
                view,
                primary: Some((op, commit, digest)),
            },
            15 => Message::RecoveryResponse {
                nonce,
                view,
                primary: None,
            },
            16 => Message::Hello {
                nonce,
                group: GroupId(self.number()),
            },
            17 => Message::HelloOk {
                nonce,
                group: GroupId(self.number()),
            },
            _ => Message::Bootstrap {
                nonce,
                group: GroupId(self.number()),
            },
        }
    }
}

/// Obeys the fast path's commands as a kernel that never stores anything.
fn obey(bench: &mut Bench, mut effects: Vec<Effect>) -> Vec<Effect> {
    let mut followed = Vec::new();
    let mut rounds = 0;
    while let Some(Effect::FastPath(command)) = effects.last() {
        effects = match command {
            FastPathCommand::Fence => {
                let last_op = bench.shows().op;
                bench.kernel(FastPathEvent::Fenced { last_op })
            }
            FastPathCommand::Claim { .. } => bench.kernel(FastPathEvent::Claimed),
            FastPathCommand::Arm { .. } | FastPathCommand::OpenSlot { .. } => return followed,
        };
        followed.extend(effects.iter().cloned());
        rounds += 1;
        assert!(rounds < 20, "it ends");
    }
    followed
}

/// Takes the writes as a disk does: each follows the one before. The last append.
fn write_all(disk: &mut electrode_vr::Stored, effects: &[Effect]) -> Option<(View, OpNumber)> {
    let mut last = None;
    for effect in effects {
        let Effect::Write(write) = effect else {
            continue;
        };
        if let electrode_vr::Write::Append { view, .. } = write {
            last = Some(*view);
        }
        disk.apply(write.clone())
            .expect("it follows what is stored");
    }
    last.map(|view| (view, disk.op()))
}

/// `seed` decides about the settings, `random` about the inputs. A replica may stop for a divergence: whoever answers its own
/// question (the nonce tells) with another log than its own is no source of garbage, but of that.
fn bombard(start: Start, fast_path: bool, seed: u64, random: Random<'_>) {
    let run = AssertUnwindSafe(|| bombard_until_it_stops(start, fast_path, seed, random));
    if let Err(panic) = catch_unwind(run) {
        let text = panic.downcast_ref::<String>().map_or("", String::as_str);
        if !text.starts_with("divergence: ") {
            resume_unwind(panic);
        }
    }
}

fn bombard_until_it_stops(start: Start, fast_path: bool, seed: u64, mut random: Random<'_>) {
    let mut settings = config(3, (seed % 3) as u8);
    settings.fast_path = fast_path;
    settings.limits.checkpoint_ops = 3;
    settings.timing.lease = [0, 40 * MS][(seed / 2 % 2) as usize];
    settings.lease_reads = true;
    if seed % 4 < 2 {
        settings.durability = electrode_vr::Durability::Disk;
    }
    let mut disk = electrode_vr::Stored::empty();
    let mut bench = Bench::unstarted(settings, start);
    let first = bench.tick();
    let _ = write_all(&mut disk, &first);
    for _ in 0..MOST_INPUTS {
        if random.is_over() {
            break;
        }
        let from = ReplicaId((random.next() % 5) as u8);
        let input = match random.next() % 12 {
            0 => Input::Tick {
                entropy: Nonce(random.next()),
            },
            1 => Input::Flush,
            2 => Input::Request {
                client: ClientId(random.number()),
                request: RequestNumber(random.number()),
                op: Arc::from(&b"op"[..]),
            },
            3 => Input::FastPath(FastPathEvent::SlotAcks {
                op: OpNumber(random.number()),
                acks: random.next() as u16,
            }),
            4 => Input::FastPath(FastPathEvent::Heard {
                from,
                at: electrode_vr::Time(random.number()),
                op: OpNumber(random.number()),
            }),
            _ => Input::Message {
                from,
                message: random.message(&bench),
            },
        };
        let effects = bench.step(input);
        let (mut written, followed) = (write_all(&mut disk, &effects), obey(&mut bench, effects));
        written = write_all(&mut disk, &followed).or(written);
        if let Some((view, op)) = written.filter(|_| !random.next().is_multiple_of(3)) {
            let effects = bench.step(Input::Persisted { view, op });
            let written = write_all(&mut disk, &effects);
            assert!(
                written.is_none(),
                "nothing is appended because something is durable"
            );
        }
        bench.now = bench.now.plus(random.next() % (30 * MS));
        let _ = (bench.shows(), bench.replica.deadline());
    }
}

#[test]
fn messages_of_any_content_never_panic() {
    for seed in 0..400 {
        let promise = Promise {
            group: GROUP,
            view: View(seed % 5),
        };
        bombard(
            Start::Bootstrap(GROUP),
            seed % 2 == 0,
            seed,
            Random::Seed(seed),
        );
        bombard(Start::New, seed % 2 == 0, seed, Random::Seed(seed));
        bombard(
            Start::Recover(promise),
            seed % 2 == 0,
            seed,
            Random::Seed(seed),
        );
    }
}

/// The body of the fuzz target `core` (`crates/vr/fuzz`): the first byte is how it starts and is configured, the rest what comes in.
pub(crate) fn any_inputs(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let choice = u64::from(*first);
    let promise = Promise {
        group: GROUP,
        view: View(choice % 5),
    };
    let start = match choice % 3 {
        0 => Start::Bootstrap(GROUP),
        1 => Start::New,
        _ => Start::Recover(promise),
    };
    bombard(start, choice / 3 % 2 == 0, choice / 6, Random::Bytes(rest));
}

#[test]
fn inputs_out_of_any_bytes_never_panic() {
    let mut random = Random::Seed(1);
    for round in 0..1000 {
        let length = random.next() % 600;
        let mut data = vec![round as u8];
        data.extend((0..length).map(|_| random.next() as u8));
        any_inputs(&data);
    }
}
