//! Programs of the typed builder in the kernel, against the same thing computed in Rust.

use std::hash::Hasher as _;

use aya::programs::{TestRun, TestRunOptions, Xdp as Loaded};
use bpf_asm::builder::{
    Array, Function, IntoVal, RingBuf, Val, Var, XDP_DROP, XDP_PASS, XDP_TX, Xdp, xdp,
};
use bpf_asm::field;
use bpf_asm::object::Object;
use bpf_asm::program::Program;
use siphasher::sip::SipHasher24;
use zerocopy::byteorder::{BE, LE, U16, U32, U64};

/// The program, loaded.
fn load(program: Program) -> aya::Ebpf {
    let name = program.main.name.clone();
    let listing = bpf_asm::disasm::listing(&program.main).to_string();
    let elf = Object::new("GPL").program(program).to_elf().unwrap();
    let mut ebpf = aya::Ebpf::load(&elf).unwrap();
    let loaded: &mut Loaded = ebpf.program_mut(&name).unwrap().try_into().unwrap();
    if let Err(error) = loaded.load() {
        panic!("{error}\n{listing}");
    }
    ebpf
}

/// What the program answers to a packet, and what becomes of that.
fn run(ebpf: &mut aya::Ebpf, name: &str, packet: &[u8]) -> (u32, Vec<u8>) {
    let loaded: &mut Loaded = ebpf.program_mut(name).unwrap().try_into().unwrap();
    let mut out = vec![0; 4096];
    let options = TestRunOptions {
        data_in: Some(packet),
        data_out: Some(&mut out),
        ..TestRunOptions::default()
    };
    let result = loaded.test_run(options).unwrap();
    out.truncate(result.data_size_out as usize);
    (result.return_value, out)
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 37 % 251) as u8).collect()
}

struct Sip<'f>([Var<'f, u64>; 4]);

impl<'f> Sip<'f> {
    fn new(f: Function<'f, Xdp>, key: [Val<'f, u64>; 2]) -> Sip<'f> {
        const INITIAL: [u64; 4] = [
            0x736f_6d65_7073_6575,
            0x646f_7261_6e64_6f6d,
            0x6c79_6765_6e65_7261,
            0x7465_6462_7974_6573,
        ];
        Sip([0, 1, 2, 3].map(|i| f.var(key[i % 2] ^ INITIAL[i])))
    }

    fn round(&self) {
        let [v0, v1, v2, v3] = self.0;
        v0.set(v0.get() + v1.get());
        v1.set(v1.get().rotate_left(13) ^ v0.get());
        v0.set(v0.get().rotate_left(32));
        v2.set(v2.get() + v3.get());
        v3.set(v3.get().rotate_left(16) ^ v2.get());
        v0.set(v0.get() + v3.get());
        v3.set(v3.get().rotate_left(21) ^ v0.get());
        v2.set(v2.get() + v1.get());
        v1.set(v1.get().rotate_left(17) ^ v2.get());
        v2.set(v2.get().rotate_left(32));
    }

    fn word(&self, word: impl IntoVal<'f, u64> + Copy) {
        let [v0, _, _, v3] = self.0;
        v3.set(v3.get() ^ word);
        self.round();
        self.round();
        v0.set(v0.get() ^ word);
    }
}

#[repr(C)]
struct Keyed {
    key: [U64<LE>; 2],
    hash: U64<LE>,
}

/// Ten values live in the loop, and the ring's record besides: the packet is copied and hashed in one pass.
#[repr(C)]
struct Copied {
    len: u64,
    words: [u64; 256],
}

#[test]
fn a_packet_is_hashed_and_copied_into_a_ring_in_one_loop() {
    const RING: RingBuf = RingBuf::new("copies", 1 << 16);
    let program = xdp("hash", |f| {
        let packet = f.packet();
        let head = packet.view::<Keyed>(0, || f.ret(XDP_DROP));
        let key = head.at(field!(Keyed, key));
        let sip = Sip::new(
            f,
            [
                key.element(0).read().to_native(),
                key.element(1).read().to_native(),
            ],
        );
        let record = RING.reserve::<Copied, _>(f, || f.ret(XDP_DROP));
        let len = f.var(0u64);
        f.loop_up_to(190, |round, words| {
            let view = packet.view_with::<U64<LE>>(round << 3u64, 190 * 8, 24, || words.break_());
            let word = view.read().to_native();
            sip.word(word);
            record
                .ptr()
                .at(field!(Copied, words))
                .index_masked(round)
                .write(word);
            len.set(len.get() + 8u64);
        });
        sip.word(len.get() << 56u64);
        let [v0, v1, v2, v3] = sip.0;
        v2.set(v2.get() ^ 0xffu64);
        (0..4).for_each(|_| sip.round());
        head.store(
            field!(Keyed, hash),
            (v0.get() ^ v1.get() ^ v2.get() ^ v3.get()).to_le(),
        );
        record.ptr().store(field!(Copied, len), len.get());
        record.submit(0u64);
        f.ret(XDP_TX);
    })
    .unwrap();
    let mut ebpf = load(program);
    for words in [0, 1, 7, 100, 190] {
        let packet = bytes(24 + 8 * words);
        let (verdict, out) = run(&mut ebpf, "hash", &packet);
        assert_eq!(verdict, XDP_TX);
        let key = |at: usize| u64::from_le_bytes(packet[at..at + 8].try_into().unwrap());
        let mut hasher = SipHasher24::new_with_keys(key(0), key(8));
        hasher.write(&packet[24..]);
        assert_eq!(out[16..24], hasher.finish().to_le_bytes(), "{words} words");
        let mut ring = aya::maps::RingBuf::try_from(ebpf.map_mut("copies").unwrap()).unwrap();
        let record = ring.next().expect("a record");
        assert_eq!(record[..8], (8 * words as u64).to_ne_bytes());
        assert_eq!(record[8..][..8 * words], packet[24..]);
    }
}

#[repr(C)]
struct Slot {
    word: u64,
    tries: u64,
}

#[test]
fn compare_and_exchange_in_a_loop_advances_a_word_once_a_packet() {
    const SLOTS: Array<Slot> = Array::new("slots", 4);
    let program = xdp("advance", |f| {
        let packet = f.packet();
        let index = packet
            .view::<[u8; 14]>(0, || f.ret(XDP_DROP))
            .element(0)
            .read();
        let slot = SLOTS.lookup(f, index.cast::<u32>(), || f.ret(XDP_PASS));
        f.loop_up_to(4, |_, tries| {
            let before = slot.fetch_add(field!(Slot, word), 0u64);
            slot.atomic_add(field!(Slot, tries), 1u64);
            let seen = slot.compare_exchange(field!(Slot, word), before, before + 3u64);
            f.if_(seen.eq(before), || f.ret(XDP_TX));
            f.if_(seen.eq(u64::MAX), || tries.break_());
        });
        f.ret(XDP_DROP);
    })
    .unwrap();
    let mut ebpf = load(program);
    for (first, verdict) in [(2, XDP_TX), (2, XDP_TX), (3, XDP_TX), (4, XDP_PASS)] {
        let mut packet = bytes(14);
        packet[0] = first;
        assert_eq!(run(&mut ebpf, "advance", &packet).0, verdict);
    }
    let slots = aya::maps::Array::<_, [u64; 2]>::try_from(ebpf.map("slots").unwrap()).unwrap();
    let values: Vec<[u64; 2]> = slots.iter().map(Result::unwrap).collect();
    assert_eq!(values, [[0, 0], [0, 0], [6, 2], [3, 1]]);
}

#[repr(C)]
struct Network {
    port: U16<BE>,
    address: U32<BE>,
    number: U64<LE>,
}

#[test]
fn byte_orders_are_converted_and_compared_without_mixing() {
    let program = xdp("order", |f| {
        let packet = f.packet();
        let view = packet.view::<Network>(0, || f.ret(XDP_DROP));
        let port = view.load(field!(Network, port));
        f.if_rare(port.to_native().ne(4040u16), || f.ret(XDP_PASS));
        let address = view.load(field!(Network, address)).to_native();
        view.store(field!(Network, address), (address + 1u32).to_be());
        view.store(field!(Network, number), address.widen::<u64>().to_le());
        f.ret(XDP_TX);
    })
    .unwrap();
    let mut ebpf = load(program);
    let packet = |port: u16| [&port.to_be_bytes()[..], &[10, 0, 0, 255], &[0; 8]].concat();
    assert_eq!(
        run(&mut ebpf, "order", &packet(4041)),
        (XDP_PASS, packet(4041))
    );
    let (verdict, out) = run(&mut ebpf, "order", &packet(4040));
    assert_eq!(verdict, XDP_TX);
    assert_eq!(
        out,
        [
            &4040u16.to_be_bytes()[..],
            &[10, 0, 1, 0],
            &[255, 0, 0, 10, 0, 0, 0, 0]
        ]
        .concat()
    );
}

#[test]
fn a_packet_cut_at_its_end_is_looked_at_anew() {
    let program = xdp("cut", |f| {
        let packet = f.packet();
        let len = packet.length();
        let failed = f.adjust_tail(packet, -6i64);
        f.if_rare(failed.ne(0i64), || f.ret(XDP_DROP));
        let packet = f.packet();
        let view = packet.view::<[u8; 14]>(0, || f.ret(XDP_DROP));
        view.element(0).write(len.cast::<u8>());
        view.element(1).write(packet.length().cast::<u8>());
        f.ret(XDP_TX);
    })
    .unwrap();
    let mut ebpf = load(program);
    let (verdict, out) = run(&mut ebpf, "cut", &bytes(64));
    assert_eq!((verdict, out.len(), out[0], out[1]), (XDP_TX, 58, 64, 58));
}

#[test]
fn a_record_left_open_is_an_error_at_its_reservation() {
    const RING: RingBuf = RingBuf::new("ring", 4096);
    let line = line!() + 2;
    let error = xdp("leak", |f| {
        let record = RING.reserve::<u64, _>(f, || f.ret(XDP_DROP));
        let early = f.random_u32().eq(0u32);
        f.if_(early, || f.ret(XDP_PASS));
        record.ptr().write(1u64);
        record.submit(0u64);
        f.ret(XDP_PASS);
    })
    .unwrap_err();
    assert_eq!((error.line.line, error.line.file), (line, file!()));
    assert!(
        error
            .to_string()
            .contains("submit or discard it on every path"),
        "{error}"
    );
}

#[test]
fn a_frame_over_512_bytes_is_an_error_at_the_largest_buffer() {
    let line = line!() + 3;
    let error = xdp("stack", |f| {
        f.stack::<[u64; 2]>().element(0).write(0u64);
        f.stack::<[u64; 63]>().element(0).write(0u64);
        f.ret(XDP_PASS);
    })
    .unwrap_err();
    assert_eq!((error.line.line, error.line.file), (line, file!()));
}

#[test]
fn a_failed_check_that_goes_on_is_an_error() {
    let line = line!() + 1;
    let error = xdp("lax", |f| f.packet().view::<u64>(0, || ()).write(1u64)).unwrap_err();
    assert_eq!((error.line.line, error.line.file), (line, file!()));
}
