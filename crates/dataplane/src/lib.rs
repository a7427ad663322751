//! Loading and attaching the fast path: aya, memory-mapped maps, ring buffer, neighbours.
//!
//! The protocol between kernel and user space is `electrode_fastpath::host`; this crate gives it real memory.

mod attach;
#[allow(unsafe_code, reason = "maps the programs' memory")]
mod memory;
mod neighbours;
pub mod probe;
mod uninterrupted;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use aya::maps::{MapData, PerCpuArray, RingBuf};
use electrode_fastpath::abi::{PEERS, Peer, TARGET_RESOLVED, Target};
use electrode_fastpath::counters::Counters;
use electrode_fastpath::host::{Host, Identity, Memory};
use electrode_vr::{GroupId, OpNumber, ReplicaId, Time, View};

pub use attach::AttachError;
use attach::Loaded;
pub use memory::{Image, Maps};
use neighbours::{Mac, Neighbours};

/// Which programs to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Programs {
    /// TC egress on the primary: one Prepare in, a copy per backup out.
    pub broadcast: bool,
    /// XDP on the backups: store a Prepare and answer it.
    pub prepare: bool,
    /// XDP on the primary: count PrepareOks.
    pub prepare_ok: bool,
}

/// What [`Dataplane::attach`] needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// The interface that the replicas' addresses are reached through, by name.
    pub interface: String,
    /// Which programs.
    pub programs: Programs,
    /// Whether `prepare` answers what it stored: not in disk mode, where stored is not yet durable.
    pub answer: bool,
    /// Whether generic XDP will do where the driver has no native XDP.
    pub allow_generic: bool,
    /// This replica.
    pub index: ReplicaId,
    /// Every replica's address, in the order of the configuration.
    pub replicas: Vec<SocketAddr>,
    /// The authenticator's key.
    pub key: [u8; 16],
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// XDP in the driver.
    Native,
    /// XDP in the stack.
    Generic,
    /// A TCX link.
    Tcx,
    /// A filter on the clsact qdisc.
    Clsact,
    /// Not attached.
    Off,
}

/// How the programs are attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The interface.
    pub interface: String,
    /// The XDP programs.
    pub xdp: Hook,
    /// The TC program.
    pub tc: Hook,
}

/// One counter of one program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// `dispatch`, `prepare`, `prepare_ok` or `broadcast`.
    pub program: &'static str,
    /// What was counted, for example `acked`.
    pub name: &'static str,
    /// How often, since the programs were attached.
    pub value: u64,
}

/// A replica's address as the programs compare it.
#[must_use]
pub fn peer(address: SocketAddr) -> Peer {
    Peer::from(address)
}

/// The attached fast path of one replica. Everything is detached when it is dropped or the process dies.
pub struct Dataplane {
    host: Host<Maps>,
    ring: RingBuf<MapData>,
    counters: PerCpuArray<MapData, [u64; Counters::LEN]>,
    neighbours: Neighbours,
    attachment: Attachment,
    index: ReplicaId,
    peers: Vec<Peer>,
    /// The MACs as the programs have them.
    macs: Vec<Option<Mac>>,
    broadcast: bool,
    /// Keeps programs and links; dropped last.
    loaded: Arc<Loaded>,
}

impl Dataplane {
    /// Loads and attaches the programs, fenced (nothing is taken by the kernel until [`Dataplane::arm`]).
    ///
    /// # Errors
    /// Kernel, capabilities or interface can't do it; the error says which and what to do.
    pub fn attach(options: &Options) -> Result<Dataplane, AttachError> {
        Dataplane::start(options, &built()?, true)
    }

    /// Loads the programs without attaching them anywhere: for `doctor` and for tests, which run them by [`Runner::run`].
    ///
    /// # Errors
    /// As [`Dataplane::attach`].
    pub fn load(options: &Options) -> Result<Dataplane, AttachError> {
        Dataplane::load_object(options, &built()?)
    }

    /// As [`Dataplane::load`], with another object than ours in ELF; its programs and maps must have the same names and layouts. For
    /// comparisons with other compilers.
    ///
    /// # Errors
    /// As [`Dataplane::attach`], and for an object that isn't such a one.
    pub fn load_object(options: &Options, object: &[u8]) -> Result<Dataplane, AttachError> {
        Dataplane::start(options, object, false)
    }

    fn start(options: &Options, object: &[u8], attach: bool) -> Result<Dataplane, AttachError> {
        let interface = neighbours::interface_index(&options.interface)
            .ok_or_else(|| AttachError::NoInterface(options.interface.clone()))?;
        let mut loaded = Loaded::load(options.programs, object)?;
        let maps = loaded.maps()?;
        let peers: Vec<Peer> = options.replicas.iter().copied().map(peer).collect();
        let mut all = [Peer::default(); PEERS];
        all[..peers.len()].copy_from_slice(&peers);
        let identity = Identity {
            index: options.index,
            replicas: peers.len(),
            key: options.key,
            peers: all,
            store: options.programs.prepare,
            answer: options.answer,
            count: options.programs.prepare_ok,
        };
        let neighbours = Neighbours::new(
            interface,
            options.replicas.iter().map(SocketAddr::ip).collect(),
        )
        .map_err(AttachError::Neighbours)?;
        let ring = loaded.ring()?;
        let counters = loaded.counters()?;
        let host = Host::new(maps, identity);
        let attachment = if attach {
            loaded.attach(options, interface)?
        } else {
            Attachment {
                interface: options.interface.clone(),
                xdp: Hook::Off,
                tc: Hook::Off,
            }
        };
        let mut dataplane = Dataplane {
            host,
            ring,
            counters,
            neighbours,
            attachment,
            index: options.index,
            macs: vec![None; peers.len()],
            peers,
            broadcast: options.programs.broadcast,
            loaded: Arc::new(loaded),
        };
        dataplane.write_targets(true);
        dataplane.refresh_neighbours();
        Ok(dataplane)
    }

    /// Runs the loaded programs on packets of the caller's, by BPF_PROG_TEST_RUN.
    #[must_use]
    pub fn runner(&self) -> Runner {
        Runner {
            loaded: Arc::clone(&self.loaded),
        }
    }

    /// How it is attached.
    #[must_use]
    pub fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// Readable (level-triggered) when the kernel has something that shouldn't wait; then [`Dataplane::take_stored`].
    #[must_use]
    pub fn ring(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }

    /// Readable when routes or neighbours changed; then [`Dataplane::on_netlink`].
    #[must_use]
    pub fn netlink(&self) -> BorrowedFd<'_> {
        self.neighbours.fd()
    }

    /// Takes the changes of routes and neighbours.
    pub fn on_netlink(&mut self) {
        match self.neighbours.update() {
            Ok(true) => self.write_targets(false),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, "can't follow routes and neighbours; the copies keep their last MACs")
            }
        }
    }

    /// Call about once a second: keeps the neighbours' entries fresh.
    pub fn refresh_neighbours(&mut self) {
        if self.broadcast
            && let Err(error) = self.neighbours.refresh()
        {
            tracing::debug!(%error, "a neighbour can't be refreshed just now");
        }
    }

    fn write_targets(&mut self, all: bool) {
        for (index, mac) in self.neighbours.macs().enumerate() {
            if mac == self.macs[index] && !all {
                continue;
            }
            self.macs[index] = mac;
            let word = mac.map_or(0, |mac| {
                let mut bytes = [0; 8];
                bytes[..6].copy_from_slice(&mac);
                u64::from_ne_bytes(bytes) | TARGET_RESOLVED
            });
            self.host.memory().write_target(
                index,
                &Target {
                    mac: word,
                    peer: self.peers[index],
                },
            );
        }
    }

    /// User space's half, which works on the programs' maps.
    pub fn host_mut(&mut self) -> &mut Host<Maps> {
        &mut self.host
    }

    /// The group's name, once it is known; takes effect with the next [`Dataplane::arm`].
    pub fn set_group(&mut self, group: GroupId) {
        self.host.set_group(group.0);
    }

    /// Stops the kernel's part at once; returns the last op that it accepted. The records up to there have to be taken next.
    pub fn fence(&mut self) -> OpNumber {
        self.host.fence()
    }

    /// Starts the kernel's part.
    pub fn arm(&mut self, view: View, primary: bool, last_op: OpNumber) {
        self.host.arm(view, primary, last_op);
    }

    /// A backup wants to append `after + 1 ..= last` itself; false when the kernel was first.
    pub fn claim(&mut self, after: OpNumber, last: OpNumber) -> bool {
        self.host.claim(after, last)
    }

    /// The primary's last op is `op`, and its Prepare is about to leave: opens its quorum slot.
    pub fn open_slot(&mut self, op: OpNumber) {
        self.host.open_slot(op);
    }

    /// Takes one stored Prepare (the whole message, header first) from the ring into `message`; false when there is none just now.
    ///
    /// # Panics
    /// The ring holds what no program of ours writes: memory is corrupt, and going on could lose acknowledged ops.
    pub fn take_stored(&mut self, message: &mut Vec<u8>) -> bool {
        while let Some(record) = self.ring.next() {
            if let Some(bytes) = self.host.message(&record) {
                message.clear();
                message.extend_from_slice(bytes);
                return true;
            }
        }
        false
    }

    /// Takes one record from the ring as a program wrote it, front first and unchecked; false when there is none just now. For
    /// comparisons, with maps that were [restored](Dataplane::restore).
    pub fn take_record(&mut self, record: &mut Vec<u8>) -> bool {
        let Some(next) = self.ring.next() else {
            return false;
        };
        record.clear();
        record.extend_from_slice(&next);
        true
    }

    /// The open slots above `commit` with acks that weren't reported yet, newest first: `(op, acks)`.
    pub fn acks(&mut self, commit: OpNumber, out: &mut Vec<(OpNumber, u16)>) {
        self.host.acks(commit, out);
    }

    /// Whom the kernel heard (acks that it kept) since the last call, per backup; times are CLOCK_MONOTONIC.
    pub fn heard(&mut self, out: &mut Vec<(ReplicaId, Time, OpNumber)>) {
        self.host.heard(out);
    }

    /// Call right before sleeping in epoll: from now a completed quorum wakes. True: it has completed already, don't sleep.
    /// `wake_on_store`: whether the next stored Prepare shall wake too (an idle backup), or only a ring that fills up.
    pub fn before_sleep(&mut self, wake_on_store: bool) -> bool {
        self.host.before_sleep(wake_on_store)
    }

    /// Call right after epoll returned: a completed quorum needs no notice while user space is awake.
    pub fn after_sleep(&mut self) {
        self.host.after_sleep();
    }

    /// Whether the ring holds something (perhaps not yet submitted).
    #[must_use]
    pub fn ring_has_record(&self) -> bool {
        self.host.memory().ring_has_record()
    }

    /// A copy of all shared memory, for tests and for reports of defects; meaningful while nobody writes.
    #[must_use]
    pub fn image(&self) -> Image {
        self.host.memory().image()
    }

    /// Makes the shared memory what it was when the image was taken, but for the ring, which only programs write. For tests and
    /// measurements; nobody may be running the programs meanwhile.
    ///
    /// # Panics
    /// The image is of maps of another size.
    pub fn restore(&mut self, image: &Image) {
        self.host.memory().restore(image);
    }

    /// The backup to whom one packet with `FLAG_BROADCAST` may be sent so that the kernel copies it to every backup whose
    /// neighbour is known; those in `plain` (appended) must be sent to one by one. None: send to all plainly.
    pub fn carrier(&mut self, plain: &mut Vec<ReplicaId>) -> Option<ReplicaId> {
        if !self.broadcast {
            return None;
        }
        let mut carrier = None;
        let before = plain.len();
        for (index, mac) in self.macs.iter().enumerate() {
            let id = ReplicaId(index as u8);
            if id == self.index {
                continue;
            }
            match mac {
                Some(_) => carrier = carrier.or(Some(id)),
                None => plain.push(id),
            }
        }
        if carrier.is_none() {
            plain.truncate(before);
        }
        carrier
    }

    /// All counters.
    ///
    /// # Errors
    /// The kernel refuses to read the map.
    pub fn counters(&self) -> io::Result<Vec<Counter>> {
        let cpus = self.counters.get(&0, 0).map_err(io::Error::other)?;
        Ok(Counters::NAMES
            .iter()
            .enumerate()
            .map(|(at, &(program, name))| Counter {
                program,
                name,
                value: cpus.iter().map(|cpu| cpu[at]).fold(0, u64::wrapping_add),
            })
            .collect())
    }
}

/// Runs loaded programs on given packets; may be used from several threads.
#[derive(Clone)]
pub struct Runner {
    loaded: Arc<Loaded>,
}

impl Runner {
    /// Runs an XDP program (`dispatch`, `prepare`, `prepare_ok`) or `broadcast` on an Ethernet frame: the verdict and the frame afterwards.
    ///
    /// # Errors
    /// The program isn't loaded or the kernel doesn't run it.
    pub fn run(&self, program: &str, frame: &[u8]) -> io::Result<(u32, Vec<u8>)> {
        let ran = self.loaded.run(program, frame, 1)?;
        Ok((ran.verdict, ran.frame))
    }

    /// As [`Runner::run`], `repeat` times over (at least once) on one copy of the frame, each run on what the one before left; with
    /// the mean time of a run.
    ///
    /// # Errors
    /// As [`Runner::run`].
    pub fn measure(&self, program: &str, frame: &[u8], repeat: u32) -> io::Result<Ran> {
        self.loaded.run(program, frame, repeat.max(1))
    }

    /// How long a loaded program is.
    ///
    /// # Errors
    /// The program isn't loaded, or the kernel doesn't tell.
    pub fn size(&self, program: &str) -> io::Result<Size> {
        self.loaded.size(program)
    }
}

/// What a test run did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// What the last run returned.
    pub verdict: u32,
    /// The frame after the last run.
    pub frame: Vec<u8>,
    /// The mean of the runs.
    pub time: Duration,
}

/// How long a loaded program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Instructions as the kernel runs them, its own inlining included.
    pub instructions: u32,
    /// Bytes of machine code; 0 without a JIT compiler.
    pub native_bytes: u32,
    /// Instructions that the verifier followed.
    pub verified: u32,
}

fn built() -> Result<Vec<u8>, AttachError> {
    electrode_fastpath::programs::object().map_err(|error| AttachError::Build(error.to_string()))
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Runner")
    }
}

impl std::fmt::Debug for Dataplane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dataplane")
            .field("host", &self.host)
            .field("attachment", &self.attachment)
            .finish_non_exhaustive()
    }
}
