//! What a run looks like: everything that a seed decides before it begins.

use electrode_vr::{Limits, Timing};

use crate::frame::Layout;
use crate::random::Random;

/// Nanoseconds of a microsecond and of a millisecond.
pub(crate) const US: u64 = 1_000;
pub(crate) const MS: u64 = 1_000_000;

/// Client sessions where none is to expire.
const SESSIONS: usize = 64;

/// The programs that one replica's machine runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Programs {
    /// `prepare`.
    pub(crate) store: bool,
    /// `prepare_ok`.
    pub(crate) count: bool,
    /// `broadcast`.
    pub(crate) broadcast: bool,
}

impl Programs {
    pub(crate) const ALL: Programs = Programs {
        store: true,
        count: true,
        broadcast: true,
    };

    /// Whether there is a fast path at all.
    pub(crate) fn any(self) -> bool {
        self.store || self.count || self.broadcast
    }
}

/// Which replicas are accelerated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceleration {
    /// As the seed decides.
    Seeded,
    /// Nobody.
    None,
    /// Everybody, with every program.
    All,
}

/// What runs the programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// The reference interpreter; programs may stop before any access to shared memory.
    #[default]
    Interpreter,
    /// The reference interpreter, whole programs: nothing comes between their accesses.
    Whole,
    /// The crate `rbpf`, whole programs: a second opinion on what they compute.
    Rbpf,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) seed: u64,
    pub(crate) engine: Engine,
    pub(crate) replicas: usize,
    pub(crate) programs: Vec<Programs>,
    pub(crate) layout: Layout,
    pub(crate) key: [u8; 16],
    pub(crate) ring_bytes: u32,
    pub(crate) timing: Timing,
    pub(crate) limits: Limits,
    pub(crate) explicit_bootstrap: bool,
    /// Who crashes never comes back: another machine takes its place, with an empty disk.
    pub(crate) replacement: bool,

    pub(crate) clients: usize,
    /// Requests of all clients together.
    pub(crate) requests: u64,
    /// Requests that one client has in flight at most.
    pub(crate) pipeline: usize,
    /// Nanoseconds: a client thinks up to this long before its next request.
    pub(crate) think: u64,
    pub(crate) keys: usize,
    /// Clients read by requests of their own kind, too.
    pub(crate) reads: bool,
    /// Primaries answer those by their lease while it holds.
    pub(crate) lease_reads: bool,

    /// The log is on disk: nothing that was acknowledged may be lost, whoever crashes.
    pub(crate) disk: bool,
    /// Nanoseconds: a write, and a sync, takes up to this long.
    pub(crate) disk_delay: u64,
    /// Disks fill up, fail, and damage what was durable.
    pub(crate) disk_faults: bool,
    /// Now and then a value has this many bytes, beyond what one packet holds.
    pub(crate) large: usize,

    /// Nothing happens but that packets are lost.
    pub(crate) only_loss: bool,
    /// Per mille of packets.
    pub(crate) loss: u64,
    pub(crate) duplication: u64,
    pub(crate) corruption: u64,
    /// Per mille of packets that are kept, and come again much later.
    pub(crate) staleness: u64,
    /// Per mille of faults at which a link or a queue stands still, and then brings everything at once.
    pub(crate) clogging: u64,
    /// Nanoseconds: each packet takes up to this much longer than the least.
    pub(crate) delay: u64,
    /// Crash in the middle of an effect list, per ten million effects.
    pub(crate) sudden_death: u64,
    /// Crash right after a promise is on disk and before anything is said of it, per mille of promises.
    pub(crate) promise_death: u64,
    /// Nanoseconds: at most this from one fault to the next.
    pub(crate) fault_gap: u64,
    /// Nanoseconds of the phase that breaks things, at most.
    pub(crate) break_for: u64,
    /// Per mille of shared-memory accesses of user space between which programs run on.
    pub(crate) interleaving: u64,
    /// Per mille of packets that a program takes up and stops over.
    pub(crate) suspension: u64,
    /// Per mille of ring notices that are lost.
    pub(crate) notice_loss: u64,
    /// Per mille of datagrams that are lost between card and socket.
    pub(crate) socket_loss: u64,
    /// Parts per million that clocks run fast or slow.
    pub(crate) drift: u64,
}

impl Plan {
    /// What a seed decides.
    #[must_use]
    pub fn of(seed: u64, requests: u64, acceleration: Acceleration) -> Plan {
        let mut random = Random::new(seed ^ 0xfeed);
        let replicas = random.pick(&[1, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 5, 5, 5, 7]);
        let programs = (0..replicas)
            .map(|_| {
                let mixed = Programs {
                    store: random.chance(500),
                    count: random.chance(500),
                    broadcast: random.chance(500),
                };
                let seeded = match random.below(10) {
                    0 => Programs::default(),
                    1 => mixed,
                    _ => Programs::ALL,
                };
                match acceleration {
                    _ if replicas == 1 => Programs::default(),
                    Acceleration::Seeded => seeded,
                    Acceleration::None => Programs::default(),
                    Acceleration::All => Programs::ALL,
                }
            })
            .collect();
        // Every tenth group is wholly in user space.
        let plain = random.chance(100) && acceleration == Acceleration::Seeded;
        let harsh = random.index(3);
        let quick = random.chance(800);
        let only_loss = random.chance(120);
        let mut more = Random::new(seed ^ 0xd15c);
        let reads = more.chance(500);
        let lease_reads = reads && more.chance(700);
        let disk = more.chance(350);
        let mut plan = Plan {
            seed,
            engine: Engine::Interpreter,
            replicas,
            programs: if plain {
                vec![Programs::default(); replicas]
            } else {
                programs
            },
            layout: Layout {
                ipv6: random.chance(250),
                vlan: random.chance(200).then_some(42),
            },
            key: if random.chance(500) {
                std::array::from_fn(|_| u8::try_from(random.below(256)).expect("a byte"))
            } else {
                [0; 16]
            },
            ring_bytes: random.pick(&[4096, 4096, 8192, 65536]),
            timing: if quick {
                Timing {
                    heartbeat: 5 * MS,
                    view_change: 40 * MS,
                    resend: 5 * MS,
                    retry: 10 * MS,
                    lease: 25 * MS,
                }
            } else {
                Timing::default()
            },
            limits: Limits {
                op_bytes: 32 << 10,
                batch_bytes: 100 + random.index(500),
                batch_ops: 1 + random.index(4),
                window: if only_loss { 1 } else { 1 + random.index(4) },
                queue: 16,
                checkpoint_ops: 8 + random.below(60),
                sessions: SESSIONS,
                session_requests: 8,
                chunk_bytes: 64 + random.index(1000),
                ..Limits::default()
            },
            explicit_bootstrap: random.chance(300),
            replacement: false,
            clients: 2 + random.index(4),
            requests,
            pipeline: 1 + random.index(4),
            think: random.pick(&[MS, 4 * MS, 8 * MS]),
            keys: 2 + random.index(4),
            reads,
            lease_reads,
            disk,
            disk_delay: more.pick(&[50 * US, 500 * US, 3 * MS]),
            disk_faults: more.chance(500),
            large: if random.chance(300) { 3000 } else { 0 },
            only_loss,
            loss: if only_loss { 300 } else { [0, 20, 100][harsh] },
            duplication: random.below(80),
            corruption: random.pick(&[0, 5, 30]),
            staleness: random.pick(&[0, 2, 10]),
            clogging: if only_loss {
                0
            } else {
                Random::new(seed ^ 0xc109).pick(&[0, 0, 150, 400])
            },
            delay: random.pick(&[MS / 10, MS, 4 * MS]),
            sudden_death: if only_loss {
                0
            } else {
                random.pick(&[0, 200, 2000])
            },
            // From a sequence of its own, like what follows below.
            promise_death: if only_loss {
                0
            } else {
                Random::new(seed ^ 0xd1e5).pick(&[0, 150, 0, 300])
            },
            fault_gap: random.pick(&[30 * MS, 90 * MS, 200 * MS]),
            break_for: if quick { 1500 * MS } else { 4000 * MS },
            interleaving: random.pick(&[0, 100, 400]),
            suspension: random.pick(&[0, 30, 200]),
            notice_loss: random.pick(&[0, 50, 300]),
            socket_loss: more.pick(&[0, 0, 20]),
            drift: random.pick(&[0, 50, 1000]),
        };
        if lease_reads {
            // What a lease allows for is an eighth: two clocks that are wrong by a sixteenth, one slow and one fast.
            plan.drift = more.pick(&[0, 1000, 60_000]);
            // Longer than a view change takes, so that it is the lease that view changes wait for.
            plan.timing.lease = more.pick(&[plan.timing.lease, 90 * MS, 250 * MS, 250 * MS]);
        }
        // From a sequence of its own: fewer sessions than clients, so that those who begin one push others out.
        let mut few = Random::new(seed ^ 0x5e55);
        if few.chance(250) {
            plan.limits.sessions = 1 + few.index(plan.clients - 1);
        }
        // From a sequence of its own: limits in bytes that are reached.
        let mut bytes = Random::new(seed ^ 0xb17e);
        if bytes.chance(250) {
            plan.limits.checkpoint_bytes = bytes.pick(&[1000, 4000]);
            plan.limits.queue_bytes = bytes.pick(&[4000, 20_000]);
        }
        // From a sequence of its own, and where no operator vouches for the group's being new: that is said once. In memory
        // only, where no more than f are down at a time: a power cut takes all disks' machines.
        plan.replacement =
            !disk && !plan.explicit_bootstrap && Random::new(seed ^ 0xdead).chance(100);
        plan
    }

    /// The same, in disk mode.
    #[must_use]
    pub fn on_disk(self) -> Plan {
        Plan {
            disk: true,
            replacement: false,
            ..self
        }
    }

    /// The same with one client that asks one thing after the other, so that the order of ops doesn't hang on timing.
    #[must_use]
    pub fn one_client(self) -> Plan {
        Plan {
            clients: 1,
            pipeline: 1,
            reads: false,
            ..self
        }
    }

    /// The same, in memory mode.
    #[must_use]
    pub fn in_memory(self) -> Plan {
        Plan {
            disk: false,
            ..self
        }
    }

    /// As it is, on another engine.
    #[must_use]
    pub fn on(self, engine: Engine) -> Plan {
        Plan { engine, ..self }
    }

    /// As it is, but with everybody alive and a good network: for tests of one behaviour.
    #[must_use]
    pub fn without_faults(self) -> Plan {
        Plan {
            only_loss: false,
            loss: 0,
            duplication: 0,
            corruption: 0,
            staleness: 0,
            clogging: 0,
            sudden_death: 0,
            promise_death: 0,
            notice_loss: 0,
            socket_loss: 0,
            drift: 0,
            disk_faults: false,
            limits: Limits {
                sessions: SESSIONS,
                ..self.limits
            },
            ..self
        }
    }

    /// Whether there are fewer sessions than clients.
    pub(crate) fn sessions_expire(&self) -> bool {
        self.limits.sessions < self.clients
    }

    /// Replicas that may fail at the same time.
    pub(crate) fn faults(&self) -> usize {
        self.replicas / 2
    }
}

impl Plan {
    /// Three replicas, all accelerated, a good network, 1,000 requests per simulated second: for measuring.
    #[must_use]
    pub fn for_speed(requests: u64) -> Plan {
        let mut plan = Plan::of(1, requests, Acceleration::All).without_faults();
        plan.replicas = 3;
        plan.programs = vec![Programs::ALL; 3];
        plan.layout = Layout {
            ipv6: false,
            vlan: None,
        };
        plan.timing = Timing::default();
        plan.limits = Limits {
            op_bytes: 32 << 10,
            ..Limits::default()
        };
        plan.ring_bytes = 1 << 20;
        plan.clients = 4;
        plan.pipeline = 1;
        plan.think = 7 * MS;
        plan.large = 0;
        plan.delay = 50 * US;
        plan.break_for = 0;
        plan.reads = false;
        plan.lease_reads = false;
        plan.in_memory()
    }
}
