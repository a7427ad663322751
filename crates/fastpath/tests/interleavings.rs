//! The programs that ship, on the interpreter, with user space coming in between at every point where it can. No root.

use std::sync::OnceLock;

use bpf_asm::harness::Harness;
use bpf_asm::interpreter::{Machine, Progress, XdpInput};
use bpf_asm::program::Program;
use electrode_fastpath::abi::{Block, Heard, PEERS, Peer, Shared};
use electrode_fastpath::host::{Host, Identity, Memory, Word};
use electrode_fastpath::programs::{NAMES, PROGRAM_PREPARE, PROGRAM_PREPARE_OK, build};
use electrode_vr::{
    ClientId, Entry, GroupId, Message, OpNumber, Prepare, ReplicaId, RequestNumber, View,
};
use electrode_wire::{Envelope, Key, encode_message};

const XDP_PASS: u64 = 2;
const XDP_TX: u64 = 3;
const KEY: Key = Key(*b"a group's secret");
const GROUP: GroupId = GroupId(7);
/// Replica 0 is its primary.
const VIEW: View = View(3);
/// Below what any run here comes to.
const MAX_POINTS: usize = 10_000;

/// The machine's maps as the host's memory.
struct Maps(Machine);

impl Maps {
    fn place(word: Word) -> (&'static str, usize) {
        match word {
            Word::Tail => ("shared", core::mem::offset_of!(Shared, tail)),
            Word::Wake => ("shared", core::mem::offset_of!(Shared, wake)),
            Word::Slot(index) => ("slots", 8 * index),
            Word::HeardAt(index) => ("heard", index * size_of::<Heard>()),
            Word::HeardOp(index) => (
                "heard",
                index * size_of::<Heard>() + core::mem::offset_of!(Heard, op),
            ),
        }
    }

    fn map(&self, name: &str) -> bpf_asm::interpreter::Map {
        self.0.map(name).expect("a map of the programs")
    }
}

impl Memory for Maps {
    fn load(&self, word: Word) -> u64 {
        let (map, at) = Maps::place(word);
        self.map(map).load_u64(at).expect("a word")
    }

    fn store(&self, word: Word, value: u64) {
        let (map, at) = Maps::place(word);
        self.map(map).store_u64(at, value).expect("a word");
    }

    fn fetch_add(&self, word: Word, value: u64) -> u64 {
        let (map, at) = Maps::place(word);
        self.map(map).fetch_add_u64(at, value).expect("a word")
    }

    fn compare_exchange(&self, word: Word, expected: u64, new: u64) -> u64 {
        let (map, at) = Maps::place(word);
        let map = self.map(map);
        map.compare_exchange_u64(at, expected, new).expect("a word")
    }

    fn write_block(&self, which: usize, block: &Block) {
        let at = core::mem::offset_of!(Shared, blocks) + which * size_of::<Block>();
        self.map("shared")
            .write(at, &bytes(block))
            .expect("a block");
    }

    fn ring_has_record(&self) -> bool {
        let (producer, consumer) = self.map("ring").ring_positions().expect("a ring");
        producer != consumer
    }
}

/// A block as it lies in memory.
fn bytes(block: &Block) -> Vec<u8> {
    let pair = |a: u32, b: u32| u64::from(a) | u64::from(b) << 32;
    let mut words = vec![block.generation, block.flags, block.view, block.group];
    words.extend(block.key);
    words.push(pair(block.index, block.replicas));
    words.push(pair(block.quorum, block.primary));
    for peer in &block.peers {
        words.extend(peer.address);
        words.push(pair(peer.port, peer.family));
    }
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    assert_eq!(bytes.len(), size_of::<Block>());
    bytes
}

fn peer(replica: u8) -> Peer {
    Peer {
        address: [u64::from(u32::from_le_bytes([10, 0, 0, replica + 1])), 0],
        port: u32::from((7000 + u16::from(replica)).to_be()),
        family: 4,
    }
}

/// Replica 1 of 3, armed as a backup with an empty log.
fn backup() -> (Harness, Host<Maps>) {
    static BUILT: OnceLock<[Program; 4]> = OnceLock::new();
    let built =
        BUILT.get_or_init(|| NAMES.map(|name| build(name).expect("a program").expect("it builds")));
    let harness = Harness::on(Machine::with_cpus(2), built.clone()).expect("they load");
    harness
        .jump("programs", PROGRAM_PREPARE, "prepare")
        .expect("a place");
    harness
        .jump("programs", PROGRAM_PREPARE_OK, "prepare_ok")
        .expect("a place");
    let mut peers = [Peer::default(); PEERS];
    for (replica, place) in (0..3).zip(&mut peers) {
        *place = peer(replica);
    }
    let identity = Identity {
        index: ReplicaId(1),
        replicas: 3,
        key: KEY.0,
        peers,
        store: true,
        count: true,
    };
    let mut host = Host::new(Maps(harness.machine().clone()), identity);
    host.set_group(GROUP.0);
    host.arm(VIEW, false, OpNumber(0));
    (harness, host)
}

/// The primary's Prepare of one op, in its frame.
fn frame(op: u64) -> Vec<u8> {
    let envelope = Envelope {
        group: GROUP,
        epoch: 0,
        sender: 0,
        flags: 0,
    };
    let message = Message::Prepare(Prepare {
        view: VIEW,
        first: OpNumber(op),
        commit: OpNumber(0),
        entries: vec![Entry {
            client: ClientId(5),
            request: RequestNumber(op),
            op: vec![1, 2, 3].into(),
        }],
    });
    let mut payload = Vec::new();
    encode_message(&envelope, &KEY, &message, &mut payload);
    let udp = 8 + payload.len() as u16;
    let mut frame = vec![0; 12];
    frame.extend([0x08, 0x00, 0x45, 0]);
    frame.extend((20 + udp).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    for word in [7000, 7001, udp, 0] {
        frame.extend(word.to_be_bytes());
    }
    frame.extend(payload);
    frame
}

/// R2: wherever the fence comes, the op is acknowledged only if the fence says that it was accepted, and then it is in the
/// ring by the time the program ends.
#[test]
fn a_fence_at_any_point_of_prepare_knows_the_last_op_exactly() {
    let mut accepted = [0, 0];
    for points in 0..MAX_POINTS {
        let (harness, mut host) = backup();
        let machine = harness.machine();
        let dispatch = harness.program("dispatch").expect("a program");
        let mut run = machine.start(dispatch, XdpInput::new(frame(1)));
        let mut ended = false;
        for _ in 0..=points {
            let progress = run.run_until_preemption_point();
            ended = matches!(progress, Ok(Progress::Done(_)));
            progress.unwrap_or_else(|fault| panic!("after {points} points: {fault}"));
        }
        let last_op = host.fence();
        let verdict = run
            .run()
            .unwrap_or_else(|fault| panic!("after {points} points: {fault}"));
        let records = harness.records("ring").expect("a ring").len();
        match last_op {
            OpNumber(1) => assert_eq!((verdict, records), (XDP_TX, 1), "after {points} points"),
            _ => assert_eq!((verdict, records), (XDP_PASS, 0), "after {points} points"),
        }
        accepted[last_op.0 as usize] += 1;
        if ended {
            assert!(accepted[0] > 3 && accepted[1] > 1, "{accepted:?}");
            return;
        }
    }
    panic!("a run of more than {MAX_POINTS} points");
}

/// Two CPUs get two Prepares, one the follower of the other, in every order of two switches: the ring has what the tail says.
#[test]
fn two_cpus_store_in_the_order_of_the_tail() {
    for points in 0..40 {
        let (harness, mut host) = backup();
        let machine = harness.machine();
        let dispatch = harness.program("dispatch").expect("a program");
        let mut first = machine.start_on(0, dispatch, XdpInput::new(frame(1)));
        let mut second = machine.start_on(1, dispatch, XdpInput::new(frame(1)));
        for _ in 0..points {
            first.run_until_preemption_point().expect("no fault");
        }
        let verdicts = [
            second.run().expect("no fault"),
            first.run().expect("no fault"),
        ];
        // The same op twice: stored once, answered twice, or passed by the one that lost its race twice.
        assert!(verdicts.contains(&XDP_TX), "{verdicts:?}");
        assert_eq!(harness.records("ring").expect("a ring").len(), 1);
        assert_eq!(host.fence(), OpNumber(1));
    }
}
