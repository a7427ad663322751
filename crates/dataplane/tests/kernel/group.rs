//! One replica's programs in the real kernel, and the frames that its peers send to it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use electrode_dataplane::{Dataplane, Options, Programs, Runner};
use electrode_vr::{
    ClientId, Entry, GroupId, Message, OpNumber, Prepare, ReplicaId, RequestNumber, View,
};
use electrode_wire::{Envelope, Key, Packet, decode, encode_message};

use crate::frame::{Frame, TAG_8021AD, TAG_8021Q};
use crate::shadow::Shadow;

pub(crate) const XDP_DROP: u32 = 1;
pub(crate) const XDP_PASS: u32 = 2;
pub(crate) const XDP_TX: u32 = 3;

pub(crate) const GROUP: GroupId = GroupId(0x0123_4567_89ab_cdef);
pub(crate) const KEY: Key = Key(*b"a group's secret");
/// A view whose primary is replica 0, in groups of 3 and of 5.
pub(crate) const VIEW: u64 = 15;

pub(crate) const ALL: Programs = Programs {
    broadcast: true,
    ..INGRESS
};

/// What most tests need. The verifier takes its time over the others.
pub(crate) const INGRESS: Programs = Programs {
    broadcast: false,
    prepare: true,
    prepare_ok: true,
};

/// What is below UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Net {
    /// IPv6 rather than IPv4.
    pub(crate) v6: bool,
    /// VLAN tags, 0 to 2.
    pub(crate) tags: usize,
}

pub(crate) const V4: Net = Net { v6: false, tags: 0 };
pub(crate) const V6: Net = Net { v6: true, tags: 0 };

/// The longest headers that there are.
pub(crate) const V6_TAGGED: Net = Net { v6: true, tags: 2 };

/// Every kind of frame that the programs understand.
pub(crate) const NETS: [Net; 6] = [
    V4,
    V6,
    Net { v6: false, tags: 1 },
    Net { v6: true, tags: 1 },
    Net { v6: false, tags: 2 },
    Net { v6: true, tags: 2 },
];

impl Net {
    /// The address of a replica.
    pub(crate) fn address(self, replica: u8) -> SocketAddr {
        let port = 7000 + u16::from(replica);
        if self.v6 {
            let last = u16::from(replica) + 1;
            (Ipv6Addr::new(0xfd00, 0, 0x77, 0, 0xa1b2, 0, 0, last), port).into()
        } else {
            (Ipv4Addr::new(10, 200, 3, replica + 1), port).into()
        }
    }

    /// A datagram from one replica to another.
    pub(crate) fn frame(self, from: u8, to: u8, payload: &[u8]) -> Frame {
        let mac = |replica| [0x02, 0xaa, 0xbb, 0xcc, 0xdd, replica];
        let tags: &[(u16, u16)] = match self.tags {
            0 => &[],
            1 => &[(TAG_8021Q, 0x6005)],
            _ => &[(TAG_8021AD, 0x0007), (TAG_8021Q, 0x2fff)],
        };
        Frame {
            to_mac: mac(to),
            from_mac: mac(from),
            tags: tags.to_vec(),
            from: self.address(from),
            to: self.address(to),
            payload: payload.to_vec(),
        }
    }
}

/// A replica's kernel part, loaded but not attached; frames are given to it by BPF_PROG_TEST_RUN.
pub(crate) struct Group {
    pub(crate) dataplane: Dataplane,
    pub(crate) runner: Runner,
    pub(crate) net: Net,
    pub(crate) me: u8,
    shadow: RefCell<Shadow>,
    seen: BTreeMap<(&'static str, &'static str), u64>,
}

impl Group {
    /// Fenced, as at the start of a process.
    pub(crate) fn new(net: Net, me: u8, replicas: u8, programs: Programs) -> Group {
        Group::with(net, me, replicas, programs, true)
    }

    /// Replica 1 of 3 in disk mode, armed as [`Group::backup`]: it stores and doesn't answer.
    pub(crate) fn backup_on_disk(net: Net) -> Group {
        let mut group = Group::with(net, 1, 3, INGRESS, false);
        group.dataplane.arm(View(VIEW), false, OpNumber(0));
        group
    }

    fn with(net: Net, me: u8, replicas: u8, programs: Programs, answer: bool) -> Group {
        let options = Options {
            interface: "lo".to_owned(),
            programs,
            answer,
            allow_generic: false,
            index: ReplicaId(me),
            replicas: (0..replicas).map(|index| net.address(index)).collect(),
            key: KEY.0,
        };
        let mut dataplane = Dataplane::load(&options).expect("the programs load");
        dataplane.set_group(GROUP);
        Group {
            runner: dataplane.runner(),
            dataplane,
            net,
            me,
            shadow: RefCell::new(Shadow::new(programs)),
            seen: BTreeMap::new(),
        }
    }

    /// Replica 1 of 3, armed as a backup of replica 0 in [`VIEW`], with an empty log.
    pub(crate) fn backup(net: Net) -> Group {
        let mut group = Group::new(net, 1, 3, INGRESS);
        group.dataplane.arm(View(VIEW), false, OpNumber(0));
        group
    }

    /// Replica 0, armed as the primary of [`VIEW`], with an empty log; it has no `prepare`.
    pub(crate) fn primary(net: Net, replicas: u8) -> Group {
        let programs = Programs {
            prepare: false,
            ..INGRESS
        };
        let mut group = Group::new(net, 0, replicas, programs);
        group.dataplane.arm(View(VIEW), true, OpNumber(0));
        group
    }

    /// Gives a message of a peer's to `dispatch`.
    pub(crate) fn receive(&self, from: u8, message: &[u8]) -> (u32, Vec<u8>) {
        self.run(&self.net.frame(from, self.me, message).bytes())
    }

    /// Gives a frame to `dispatch`, in the kernel and in the interpreter, which must agree.
    pub(crate) fn run(&self, frame: &[u8]) -> (u32, Vec<u8>) {
        let mut shadow = self.shadow.borrow_mut();
        shadow.xdp(&self.dataplane, frame, || {
            self.runner
                .run("dispatch", frame)
                .expect("the kernel runs it")
        })
    }

    /// Gives a frame that leaves to `broadcast`, in the kernel and elsewhere, who must agree.
    pub(crate) fn send(&self, frame: &[u8]) -> (u32, Vec<u8>) {
        let mut shadow = self.shadow.borrow_mut();
        let (ran, _) = shadow.broadcast(&self.dataplane, frame, || {
            self.runner
                .run("broadcast", frame)
                .expect("the kernel runs it")
        });
        ran
    }

    /// Whether all frames so far went through the other engines too.
    pub(crate) fn is_followed(&self) -> bool {
        self.shadow.borrow().is_following()
    }

    /// Everything in the ring but notices.
    pub(crate) fn drain(&mut self) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        let mut message = Vec::new();
        while self.dataplane.take_stored(&mut message) {
            messages.push(message.clone());
        }
        let shadow = self.shadow.get_mut();
        shadow.drained(&self.dataplane, &messages);
        messages
    }

    /// generation and op of the tail word.
    pub(crate) fn tail(&self) -> (u64, u64) {
        let word = self.dataplane.image().shared[0];
        (word >> 48, word & ((1 << 48) - 1))
    }

    /// Demands that exactly these counters moved since the last call, by this much.
    #[track_caller]
    pub(crate) fn counted(&mut self, expected: &[(&str, &str, u64)]) {
        let moved = self.moved();
        let moved: BTreeMap<(&str, &str), u64> = moved.into_iter().collect();
        let expected: BTreeMap<(&str, &str), u64> = expected
            .iter()
            .map(|&(p, n, value)| ((p, n), value))
            .collect();
        assert_eq!(moved, expected, "counters that moved");
    }

    /// The counters that moved since the last call, and by how much.
    pub(crate) fn moved(&mut self) -> Vec<((&'static str, &'static str), u64)> {
        let counters = self.dataplane.counters().expect("the counters can be read");
        let mut moved = Vec::new();
        for counter in counters {
            let seen = self
                .seen
                .entry((counter.program, counter.name))
                .or_default();
            if counter.value != *seen {
                moved.push(((counter.program, counter.name), counter.value - *seen));
                *seen = counter.value;
            }
        }
        moved
    }

    /// Demands that `frame` is neither answered nor stored nor changed, and that it changes no map but this counter.
    #[track_caller]
    pub(crate) fn refuses(&mut self, frame: &[u8], verdict: u32, counter: (&str, &str)) {
        let dispatched = match counter.0 {
            "dispatch" => None,
            program => Some(("dispatch", program, 1)),
        };
        let before = self.dataplane.image();
        let (got, after) = self.run(frame);
        assert_eq!(
            (got, &after[..]),
            (verdict, frame),
            "verdict and frame; counters: {:?}",
            self.moved()
        );
        assert_eq!(self.dataplane.image(), before, "the maps");
        let mut expected = vec![(counter.0, counter.1, 1)];
        expected.extend(dispatched);
        self.counted(&expected);
    }
}

/// The op that stands at `number` in every log of these tests.
pub(crate) fn entry(number: u64, bytes: usize) -> Entry {
    let op: Vec<u8> = (0..bytes)
        .map(|at| (number as usize * 7 + at) as u8 | 1)
        .collect();
    Entry {
        client: ClientId(0x1000 + number),
        request: RequestNumber(number),
        op: op.into(),
    }
}

/// A Prepare of `view` for ops `first..first + sizes.len()`, each of so many bytes, from the view's primary in a group of 3 or 5.
pub(crate) fn prepare(view: u64, first: u64, sizes: &[usize]) -> Vec<u8> {
    let entries = (first..).zip(sizes).map(|(op, bytes)| entry(op, *bytes));
    encoded(
        0,
        &Message::Prepare(Prepare {
            view: View(view),
            first: OpNumber(first),
            commit: OpNumber(first.saturating_sub(1)),
            entries: entries.collect(),
        }),
    )
}

/// A PrepareOk.
pub(crate) fn prepare_ok(sender: u8, view: u64, op: u64, last_op: u64) -> Vec<u8> {
    encoded(
        sender,
        &Message::PrepareOk {
            view: View(view),
            op: OpNumber(op),
            last_op: OpNumber(last_op),
        },
    )
}

/// A message of this group's, with its check.
pub(crate) fn encoded(sender: u8, message: &Message) -> Vec<u8> {
    encoded_with(sender, GROUP, &KEY, message)
}

/// As [`encoded`], in another group's name or by another key.
pub(crate) fn encoded_with(sender: u8, group: GroupId, key: &Key, message: &Message) -> Vec<u8> {
    let envelope = Envelope {
        group,
        epoch: 0,
        sender,
        flags: 0,
    };
    let mut out = Vec::new();
    encode_message(&envelope, key, message, &mut out);
    out
}

/// Writes the check that a patched message needs to be believed.
pub(crate) fn sign(message: &mut [u8]) {
    let check = electrode_wire::check(&KEY, message);
    message[8..16].copy_from_slice(&check.to_le_bytes());
}

/// What user space would read: the sender and the message.
pub(crate) fn decoded(message: &[u8]) -> (u8, Message) {
    match decode(message, &KEY) {
        Ok((envelope, Packet::Message(message))) => {
            assert_eq!(envelope.group, GROUP);
            (envelope.sender, message)
        }
        other => panic!("{other:?}"),
    }
}

/// Whether user space can read it.
pub(crate) fn decodes(message: &[u8]) -> bool {
    decode(message, &KEY).is_ok()
}

/// Demands that `frame` is the answer to `asked`: the same way back, and a PrepareOk of `me`.
#[track_caller]
pub(crate) fn assert_answer(frame: &[u8], asked: &Frame, me: u8, view: u64, op: u64, last_op: u64) {
    let answer = Frame::parse(frame);
    let expected = Frame {
        to_mac: asked.from_mac,
        from_mac: asked.to_mac,
        tags: asked.tags.clone(),
        from: asked.to,
        to: asked.from,
        // Byte for byte what user space would have sent.
        payload: prepare_ok(me, view, op, last_op),
    };
    assert_eq!(answer, expected);
    let message = Message::PrepareOk {
        view: View(view),
        op: OpNumber(op),
        last_op: OpNumber(last_op),
    };
    assert_eq!(decoded(&answer.payload), (me, message));
}
