//! Linux, as the driver sees it: the boot clock, one UDP socket, the state directory, the log's thread, the attached
//! programs.

mod report;

use std::net::SocketAddr;

use electrode_dataplane::{Dataplane, Maps};
use electrode_driver::{Door, Driver, Happened, Received, ReplyTo, System, Waiting};
use electrode_fastpath::host::Host;
use electrode_vr::{
    Message, Nonce, Note, OpNumber, Prepare, Promise, ReplicaId, StateMachine, Time, View, Write,
};
use electrode_wire::admission::{Refusal, Refusals};
use nix::sys::socket::SockaddrStorage;

use crate::calls::counted;
use crate::clock::{self, Entropy};
use crate::error::RunError;
use crate::fast_path::FastPath;
use crate::journal::Journal;
use crate::options::App;
use crate::socket::Socket;
use crate::state::StateDir;
use crate::supervisor::Supervisor;

/// What a replica has of its machine.
pub(crate) struct Linux {
    pub(crate) app: App,
    pub(crate) read_leases: bool,
    pub(crate) started: Time,
    pub(crate) peers: Vec<SockaddrStorage>,
    pub(crate) state: StateDir,
    /// The log on disk, in disk mode.
    pub(crate) journal: Option<Journal>,
    pub(crate) fast_path: FastPath,
    pub(crate) socket: Socket,
    pub(crate) supervisor: Supervisor,
    pub(crate) entropy: Entropy,
    pub(crate) refusals: Refusals,
    /// Status requests answered in the second that began at `.0`.
    pub(crate) status: (Time, u32),
    /// One record of the ring.
    pub(crate) record: Vec<u8>,
}

impl<S: StateMachine> System<S> for Linux {
    type Error = RunError;
    type Memory = Maps;

    fn now(&mut self) -> Time {
        clock::now()
    }

    fn entropy(&mut self) -> Nonce {
        self.entropy.next()
    }

    fn receive(&mut self) -> Result<usize, RunError> {
        self.socket.receive().map_err(RunError::system("receiving"))
    }

    fn received(&mut self, door: &mut Door, index: usize) -> Result<Received, Refusal> {
        let (bytes, source) = self.socket.datagram(index);
        door.open(bytes, source)
    }

    fn refused(&mut self, index: usize, refusal: Refusal) {
        let (_, source) = self.socket.datagram(index);
        if self.refusals.count(refusal, source) && refusal.is_alarming() {
            let (name, why) = (refusal.name(), refusal.describe(source));
            tracing::warn!("refused a datagram ({name}; later ones are only counted): {why}");
        }
    }

    fn compose(&mut self, door: &Door, flags: u8, message: &Message) {
        self.socket
            .compose(|out| door.encode_message(flags, message, out));
    }

    fn send_to(&mut self, to: ReplicaId) {
        self.socket.send_to(self.peers[to.index()]);
    }

    fn reply(&mut self, door: &Door, to: SocketAddr, reply: ReplyTo<'_>) {
        self.socket.compose(|out| door.encode_reply(reply, out));
        self.socket.send_to(SockaddrStorage::from(to));
    }

    fn flush(&mut self) -> usize {
        self.socket.flush()
    }

    fn answer_status(
        &mut self,
        driver: &Driver<S>,
        nonce: Nonce,
        source: SocketAddr,
    ) -> Result<(), Refusal> {
        self.answer(driver, nonce, source)
    }

    fn store(&mut self, promise: Promise) -> Result<(), RunError> {
        Ok(self.state.store(promise)?)
    }

    fn write(&mut self, write: Write) -> Result<(), RunError> {
        let journal = self.journal.as_mut();
        journal
            .expect("the core writes in disk mode only")
            .write(write)?;
        Ok(())
    }

    fn barrier(&mut self) -> Result<(), RunError> {
        if let Some(journal) = &mut self.journal {
            journal.barrier()?;
        }
        Ok(())
    }

    fn persisted(&mut self) -> Result<Option<(View, OpNumber)>, RunError> {
        match &mut self.journal {
            Some(journal) => Ok(journal.persisted()?),
            None => Ok(None),
        }
    }

    fn host(&mut self) -> Option<&mut Host<Maps>> {
        self.fast_path.dataplane.as_mut().map(Dataplane::host_mut)
    }

    fn take_stored(&mut self, door: &Door) -> Result<Option<Prepare>, RunError> {
        let Some(dataplane) = &mut self.fast_path.dataplane else {
            return Ok(None);
        };
        if !dataplane.take_stored(&mut self.record) {
            return Ok(None);
        }
        Ok(Some(door.stored(&self.record)?))
    }

    fn carrier(&mut self, bytes: usize, plain: &mut Vec<ReplicaId>) -> Option<ReplicaId> {
        let dataplane = self.fast_path.dataplane.as_mut();
        dataplane
            .filter(|_| bytes <= self.fast_path.payload)?
            .carrier(plain)
    }

    fn on_own_clock(&mut self, at: Time) -> Time {
        Time(at.0.saturating_add_signed(clock::programs_to_boot()))
    }

    fn pause(&mut self, waiting: &Waiting) -> bool {
        let patient = clock::now() < waiting.until;
        if patient {
            counted(std::thread::yield_now);
        }
        patient
    }

    fn note(&mut self, note: Note) {
        match note {
            Note::Entered {
                status,
                view,
                primary,
            } => {
                let line = format!(
                    "{status} in view {view}{}",
                    if primary { ", primary" } else { "" }
                );
                tracing::info!("{line}");
                self.supervisor.status(&line);
            }
            Note::Warning(warning) => {
                tracing::warn!("{warning}");
                self.supervisor.status(&warning);
            }
        }
    }

    fn saw(&mut self, driver: &Driver<S>, what: Happened<'_>) {
        if let Happened::Joined = what {
            tracing::info!("this is group {:016x}", driver.door().group().0);
        }
    }
}
