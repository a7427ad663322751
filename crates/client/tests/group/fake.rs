//! A group in threads that speaks the wire like a real one: sessions, numbers in order, views; and, as asked, loses,
//! refuses, or moves its primary. What it executes is echoed, or given to a state machine.

use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use electrode_vr::{ClientId, GroupId, Reply, RequestNumber, StateMachine, View};
use electrode_wire::{Envelope, Key, Packet, decode, encode_reply};

/// What goes wrong, each by how many of a hundred datagrams.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trouble {
    pub(crate) lost: u64,
    pub(crate) busy: u64,
    /// Nothing is ever executed.
    pub(crate) mute: bool,
}

#[derive(Default)]
struct Session {
    highest: u64,
    replies: VecDeque<(u64, Vec<u8>)>,
    held: BTreeMap<u64, Vec<u8>>,
}

struct State {
    group: GroupId,
    view: View,
    trouble: Trouble,
    sessions: BTreeMap<ClientId, Session>,
    machine: Box<dyn StateMachine + Send>,
    executed: u64,
    chance: u64,
}

pub(crate) struct FakeGroup {
    pub(crate) addresses: Vec<SocketAddr>,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl FakeGroup {
    pub(crate) fn start(
        replicas: usize,
        trouble: Trouble,
        machine: impl StateMachine + Send + 'static,
    ) -> FakeGroup {
        let sockets: Vec<UdpSocket> = (0..replicas)
            .map(|_| UdpSocket::bind("127.0.0.1:0").unwrap())
            .collect();
        let addresses = sockets
            .iter()
            .map(|socket| socket.local_addr().unwrap())
            .collect();
        let state = Arc::new(Mutex::new(State {
            group: GroupId(0xfeed),
            view: View(0),
            trouble,
            sessions: BTreeMap::new(),
            machine: Box::new(machine),
            executed: 0,
            chance: 1,
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let threads = sockets
            .into_iter()
            .enumerate()
            .map(|(index, socket)| {
                let (state, stop) = (state.clone(), stop.clone());
                std::thread::spawn(move || serve(index as u8, replicas, &socket, &state, &stop))
            })
            .collect();
        FakeGroup {
            addresses,
            state,
            stop,
            threads,
        }
    }

    #[allow(
        dead_code,
        reason = "not every test file that includes this one moves the view"
    )]
    pub(crate) fn enter_view(&self, view: u64) {
        self.state.lock().unwrap().view = View(view);
    }

    #[allow(
        dead_code,
        reason = "not every test file that includes this one changes the group"
    )]
    pub(crate) fn become_group(&self, group: u64) {
        self.state.lock().unwrap().group = GroupId(group);
    }

    #[allow(
        dead_code,
        reason = "not every test file that includes this one forgets"
    )]
    pub(crate) fn forget_sessions(&self) {
        self.state.lock().unwrap().sessions.clear();
    }

    #[allow(
        dead_code,
        reason = "not every test file that includes this one counts"
    )]
    pub(crate) fn executed(&self) -> u64 {
        self.state.lock().unwrap().executed
    }
}

impl Drop for FakeGroup {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve(index: u8, replicas: usize, socket: &UdpSocket, state: &Mutex<State>, stop: &AtomicBool) {
    socket
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let mut buffer = vec![0; 65536];
    let mut out = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let Ok((envelope, packet)) = decode(&buffer[..length], &Key::UNKEYED) else {
            continue;
        };
        let Packet::Request {
            client,
            request,
            op,
        } = packet
        else {
            continue;
        };
        let mut state = state.lock().unwrap();
        let lost = state.trouble.lost;
        if state.chance(lost) || ![GroupId(0), state.group].contains(&envelope.group) {
            continue;
        }
        let replies = if state.view.primary(replicas).0 == index {
            state.on_request(client, request, &op)
        } else {
            vec![(request, Reply::NotPrimary)]
        };
        let envelope = Envelope {
            group: state.group,
            epoch: 0,
            sender: index,
            flags: 0,
        };
        for (request, reply) in replies {
            encode_reply(&envelope, state.view, client, request, &reply, &mut out);
            if !state.chance(lost) {
                let _ = socket.send_to(&out, from);
            }
        }
    }
}

impl State {
    fn on_request(
        &mut self,
        client: ClientId,
        request: RequestNumber,
        op: &[u8],
    ) -> Vec<(RequestNumber, Reply)> {
        if self.trouble.mute {
            return vec![];
        }
        if self.chance(self.trouble.busy) {
            return vec![(request, Reply::Busy { retry_after_ms: 2 })];
        }
        if request.is_read() {
            let result = self.machine.read(op);
            let reply = result.map_or(Reply::NotRead, |bytes| Reply::Done(bytes.into()));
            return vec![(request, reply)];
        }
        if !self.sessions.contains_key(&client) && request != RequestNumber(1) {
            return vec![(request, Reply::NoSession)];
        }
        let session = self.sessions.entry(client).or_default();
        if request.0 <= session.highest {
            let kept = session
                .replies
                .iter()
                .find(|(number, _)| *number == request.0);
            let reply = kept.map_or(Reply::NoSession, |(_, reply)| {
                Reply::Done(reply.as_slice().into())
            });
            return vec![(request, reply)];
        }
        session.held.insert(request.0, op.to_vec());
        let mut replies = Vec::new();
        while let Some(op) = session.held.remove(&(session.highest + 1)) {
            session.highest += 1;
            self.executed += 1;
            let result = self.machine.apply(&op);
            replies.push((
                RequestNumber(session.highest),
                Reply::Done(result.as_slice().into()),
            ));
            session.replies.push_back((session.highest, result));
            if session.replies.len() > 64 {
                session.replies.pop_front();
            }
        }
        replies
    }

    /// A small generator of its own: the same every time.
    fn chance(&mut self, percent: u64) -> bool {
        self.chance = self
            .chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.chance >> 33) % 100 < percent
    }
}
