//! The session over UDP, on smol: one connected socket for each replica, so that the kernel checks where replies come
//! from and tells when nobody listens.

use std::collections::HashMap;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use electrode_vr::{MAX_REPLICAS, ReplicaId, Time};
use electrode_wire::{MAX_DATAGRAM, decode_reply, encode_request};
use smol::channel::{Receiver, Sender};
use smol::future::FutureExt;

use crate::RequestError;
use crate::session::{Session, Settings};

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// The replicas' addresses, in the order of the configuration; all of one family.
    pub replicas: Vec<SocketAddr>,
    /// A request that isn't answered within this time ends with an error.
    pub deadline: Duration,
    /// Requests in flight at once; others wait.
    pub window: usize,
}

impl Options {
    /// A deadline of 5 seconds, a window of 32.
    #[must_use]
    pub fn new(replicas: Vec<SocketAddr>) -> Options {
        Options {
            replicas,
            deadline: Duration::from_secs(5),
            window: 32,
        }
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No replica, or more than there can be.
    #[error("{0} replicas, expected 1 to {MAX_REPLICAS}")]
    Replicas(usize),
    /// The system gives no socket for this replica.
    #[error("no socket for replica {address}: {error}")]
    Socket {
        /// The replica.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
}

/// A client of one group. Requests may be made from several tasks at once; clones share the session.
///
/// Receiving and retrying happen in tasks on smol's global executor; they end when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
    deadline: Duration,
    /// Dropping a task ends it.
    _tasks: Arc<Vec<smol::Task<()>>>,
}

#[derive(Debug)]
struct Shared {
    started: Instant,
    sockets: Vec<smol::Async<std::net::UdpSocket>>,
    state: Mutex<State>,
    /// Tells the timer that it sleeps too long.
    sooner: Sender<()>,
}

#[derive(Debug)]
struct State {
    session: Session,
    waiting: HashMap<u64, Sender<Result<Vec<u8>, RequestError>>>,
    next_token: u64,
    /// Until when the timer sleeps; none: until it is told.
    sleeps_until: Option<Time>,
    datagram: Vec<u8>,
}

impl Client {
    /// Opens the sockets; nothing is sent yet, and nobody has to be there.
    ///
    /// # Errors
    /// No replicas or too many, or no socket for one of them.
    pub fn connect(options: Options) -> Result<Client, ConnectError> {
        let count = options.replicas.len();
        if !(1..=MAX_REPLICAS).contains(&count) {
            return Err(ConnectError::Replicas(count));
        }
        let mut sockets = Vec::new();
        for address in options.replicas {
            let socket =
                connected(address).map_err(|error| ConnectError::Socket { address, error })?;
            sockets.push(socket);
        }
        let settings = Settings {
            window: options.window.max(1),
            ..Settings::new(count)
        };
        let (sooner, told) = smol::channel::bounded(1);
        let shared = Arc::new(Shared {
            started: Instant::now(),
            sockets,
            state: Mutex::new(State {
                session: Session::new(settings, RandomState::new().hash_one(std::process::id())),
                waiting: HashMap::new(),
                next_token: 0,
                sleeps_until: None,
                datagram: Vec::new(),
            }),
            sooner,
        });
        let mut tasks = vec![smol::spawn(keep_time(shared.clone(), told))];
        for index in 0..count {
            let replica = ReplicaId(u8::try_from(index).expect("at most MAX_REPLICAS"));
            tasks.push(smol::spawn(receive(shared.clone(), replica)));
        }
        Ok(Client {
            shared,
            deadline: options.deadline,
            _tasks: Arc::new(tasks),
        })
    }

    /// Asks the group to execute `op` and waits for its result, until the deadline at most. Dropping the future
    /// doesn't take the request back.
    ///
    /// # Errors
    /// See [`RequestError`]; [`RequestError::outcome_unknown`] tells whether the op may have been executed.
    pub fn request(
        &self,
        op: Vec<u8>,
    ) -> impl Future<Output = Result<Vec<u8>, RequestError>> + Send + use<> {
        self.request_within(op, self.deadline)
    }

    /// As [`Client::request`], with a deadline of its own.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub fn request_within(
        &self,
        op: Vec<u8>,
        deadline: Duration,
    ) -> impl Future<Output = Result<Vec<u8>, RequestError>> + Send + use<> {
        let answer = self.shared.submit(op, deadline, false);
        async move { answer?.recv().await.unwrap_or(Err(RequestError::Closed)) }
    }

    /// Asks for the result of an `op` that changes nothing, until the deadline at most. It sees everything that was
    /// answered before it was asked; requests that are in flight it may see or not. Where the primary has a lease it
    /// answers without asking the backups.
    ///
    /// # Errors
    /// As [`Client::request`], and [`RequestError::NotRead`].
    pub fn read(
        &self,
        op: Vec<u8>,
    ) -> impl Future<Output = Result<Vec<u8>, RequestError>> + Send + use<> {
        let answer = self.shared.submit(op, self.deadline, true);
        async move { answer?.recv().await.unwrap_or(Err(RequestError::Closed)) }
    }
}

/// Hands every datagram of one replica to the session.
async fn receive(shared: Arc<Shared>, from: ReplicaId) {
    let socket = &shared.sockets[from.index()];
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        match socket.recv(&mut buffer).await {
            Ok(length) => shared.on_datagram(from, &buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                shared.state().session.on_refused(from);
            }
            Err(error) => {
                tracing::debug!(replica = from.0, %error, "receiving failed");
                // Such errors come back at once; without a pause this would spin.
                smol::Timer::after(Duration::from_millis(10)).await;
            }
        }
    }
}

/// Wakes the session when it is due.
async fn keep_time(shared: Arc<Shared>, told: Receiver<()>) {
    loop {
        let due = {
            let mut state = shared.state();
            state.sleeps_until = state.session.deadline();
            state.sleeps_until
        };
        let told = async {
            let _ = told.recv().await;
        };
        match due {
            Some(due) => {
                let at = shared.started + Duration::from_nanos(due.0);
                let slept = async {
                    smol::Timer::at(at).await;
                };
                pin!(told).or(slept).await;
            }
            None => told.await,
        }
        shared.on_time();
    }
}

impl Shared {
    fn submit(
        &self,
        op: Vec<u8>,
        deadline: Duration,
        read: bool,
    ) -> Result<Receiver<Result<Vec<u8>, RequestError>>, RequestError> {
        let now = self.now();
        let deadline = now.plus(u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX));
        let (answer, receiver) = smol::channel::bounded(1);
        let mut state = self.state();
        let token = state.next_token;
        state.next_token += 1;
        if read {
            state.session.submit_read(now, token, op, deadline)?;
        } else {
            state.session.submit(now, token, op, deadline)?;
        }
        state.waiting.insert(token, answer);
        self.flush(&mut state, now);
        Ok(receiver)
    }

    fn on_datagram(&self, from: ReplicaId, bytes: &[u8]) {
        let reply = match decode_reply(bytes) {
            Ok(reply) => reply,
            Err(error) => {
                tracing::debug!(replica = from.0, %error, "not a reply");
                return;
            }
        };
        let now = self.now();
        let mut state = self.state();
        if let Some(done) = state.session.on_reply(now, from, &reply)
            && let Some(answer) = state.waiting.remove(&done.token)
        {
            // Whoever asked may have gone.
            let _ = answer.try_send(Ok(done.result.to_vec()));
        }
        self.flush(&mut state, now);
    }

    fn on_time(&self) {
        let now = self.now();
        let mut state = self.state();
        state.session.on_time(now);
        self.flush(&mut state, now);
    }

    /// Sends what is due, tells who failed, and wakes the timer if it would come too late.
    fn flush(&self, state: &mut State, now: Time) {
        let State {
            session,
            waiting,
            datagram,
            ..
        } = state;
        let mut undelivered = Vec::new();
        session.transmit(now, |transmit| {
            encode_request(
                &transmit.envelope,
                transmit.client,
                transmit.request,
                transmit.op,
                datagram,
            );
            let socket = self.sockets[transmit.to.index()].get_ref();
            if let Err(error) = socket.send(datagram) {
                undelivered.push((transmit.to, error.kind()));
            }
        });
        for (replica, kind) in undelivered {
            session.on_send_failed(replica);
            // The system reports an earlier datagram's fate at the next call.
            if kind == io::ErrorKind::ConnectionRefused {
                session.on_refused(replica);
            }
        }
        while let Some(failed) = session.poll_failed() {
            if let Some(answer) = waiting.remove(&failed.token) {
                let _ = answer.try_send(Err(failed.error));
            }
        }
        let due = session.deadline();
        if due.is_some_and(|due| state.sleeps_until.is_none_or(|until| due < until)) {
            state.sleeps_until = due;
            // A full channel has told it already.
            let _ = self.sooner.try_send(());
        }
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A session is consistent between calls; a panic elsewhere doesn't make it less so.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn connected(address: SocketAddr) -> io::Result<smol::Async<std::net::UdpSocket>> {
    let local: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = std::net::UdpSocket::bind(local)?;
    socket.connect(address)?;
    smol::Async::new(socket)
}
