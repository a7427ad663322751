//! Maps and the ring buffer as the kernel keeps them.

use bpf_asm::insn::Reg;
use bpf_asm::interpreter::{Errno, Machine, MapError, XdpInput};
use bpf_asm::program::{MapDef, MapType, ProgramKind};

use crate::support::{array, map, program, ring};

fn errno<T: std::fmt::Debug>(result: Result<T, MapError>) -> Errno {
    match result {
        Err(MapError::Refused { errno, .. }) => errno,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_array_is_memory_of_words_padded_to_eight_bytes() {
    let machine = Machine::new();
    let map = machine
        .create_map(&map("a", MapType::Array, (4, 12), 3))
        .unwrap();
    map.update(&1u32.to_le_bytes(), &[9; 12]).unwrap();
    assert_eq!(map.load_u64(16), Ok(0x0909_0909_0909_0909));
    assert_eq!(map.load_u64(24), Ok(0x0909_0909));
    assert_eq!(map.fetch_add_u64(32, 5), Ok(0));
    assert_eq!(map.compare_exchange_u64(32, 4, 8), Ok(5));
    assert_eq!(map.compare_exchange_u64(32, 5, 8), Ok(5));
    assert_eq!(map.swap_u64(32, 1), Ok(8));
    assert_eq!(
        map.lookup(&2u32.to_le_bytes()).unwrap().unwrap()[..8],
        1u64.to_le_bytes()
    );
    for offset in [4, 48, usize::MAX - 3] {
        assert!(matches!(map.load_u64(offset), Err(MapError::Range { .. })));
    }
    assert_eq!(map.lookup(&3u32.to_le_bytes()), Ok(None));
    assert_eq!(
        errno(map.update(&3u32.to_le_bytes(), &[0; 12])),
        Errno::E2BIG
    );
    assert_eq!(errno(map.delete(&0u32.to_le_bytes())), Errno::EINVAL);
    assert!(matches!(
        map.update(&[0], &[0; 12]),
        Err(MapError::Length { .. })
    ));
}

#[test]
fn a_hash_map_holds_so_many_keys_and_an_lru_one_forgets_the_oldest() {
    let machine = Machine::new();
    let hash = machine
        .create_map(&map("h", MapType::Hash, (2, 8), 2))
        .unwrap();
    hash.update_with(b"aa", &[1; 8], 1).unwrap();
    assert_eq!(errno(hash.update_with(b"aa", &[1; 8], 1)), Errno::EEXIST);
    assert_eq!(errno(hash.update_with(b"bb", &[1; 8], 2)), Errno::ENOENT);
    hash.update(b"bb", &[2; 8]).unwrap();
    assert_eq!(errno(hash.update(b"cc", &[3; 8])), Errno::E2BIG);
    hash.update(b"aa", &[4; 8]).unwrap();
    hash.delete(b"bb").unwrap();
    assert_eq!(errno(hash.delete(b"bb")), Errno::ENOENT);
    assert_eq!(hash.entries(), [(b"aa".to_vec(), vec![4; 8])]);

    let lru = machine
        .create_map(&map("l", MapType::LruHash, (2, 8), 2))
        .unwrap();
    for (key, value) in [(b"aa", 1), (b"bb", 2)] {
        lru.update(key, &[value; 8]).unwrap();
    }
    lru.lookup(b"aa").unwrap();
    lru.update(b"cc", &[3; 8]).unwrap();
    assert_eq!(lru.lookup(b"bb"), Ok(None));
    assert!(lru.lookup(b"aa").unwrap().is_some());
}

#[test]
fn a_trie_finds_the_longest_prefix() {
    let machine = Machine::new();
    let def = MapDef {
        flags: 1,
        ..map("t", MapType::LpmTrie, (8, 8), 4)
    };
    let trie = machine.create_map(&def).unwrap();
    let key = |length: u32, address: [u8; 4]| [length.to_le_bytes(), address].concat();
    for (length, address, value) in [
        (8, [10, 0, 0, 0], 1),
        (24, [10, 1, 2, 99], 2),
        (0, [0; 4], 3),
    ] {
        trie.update(&key(length, address), &[value; 8]).unwrap();
    }
    for (address, value) in [([10, 9, 9, 9], 1), ([10, 1, 2, 3], 2), ([11, 1, 2, 3], 3)] {
        assert_eq!(trie.lookup(&key(32, address)), Ok(Some(vec![value; 8])));
    }
    trie.delete(&key(24, [10, 1, 2, 0])).unwrap();
    assert_eq!(trie.lookup(&key(32, [10, 1, 2, 3])), Ok(Some(vec![1; 8])));
    assert_eq!(errno(trie.update(&key(33, [0; 4]), &[0; 8])), Errno::EINVAL);
}

#[test]
fn a_queue_gives_the_oldest_and_a_bloom_filter_knows_what_was_added() {
    let machine = Machine::new();
    let queue = machine
        .create_map(&map("q", MapType::Queue, (0, 1), 2))
        .unwrap();
    queue.push(&[1]).unwrap();
    queue.push(&[2]).unwrap();
    assert_eq!(errno(queue.push(&[3])), Errno::E2BIG);
    assert_eq!(queue.pop(), Ok(Some(vec![1])));
    let bloom = map("b", MapType::Bloom, (0, 4), 8);
    machine
        .create_map(&bloom)
        .unwrap()
        .push(&5u32.to_le_bytes())
        .unwrap();
    let program = program(ProgramKind::Xdp, &[bloom], |a| {
        a.mov64(Reg::R2, Reg::R10).add64_imm(Reg::R2, -4);
        a.st_w(Reg::R10, -4, 5)
            .load_map(Reg::R1, "b")
            .call(89)
            .mov64(Reg::R6, Reg::R0);
        a.mov64(Reg::R2, Reg::R10).add64_imm(Reg::R2, -4);
        a.st_w(Reg::R10, -4, 6).load_map(Reg::R1, "b").call(89);
        a.sub64(Reg::R0, Reg::R6).exit();
    });
    let id = machine.load(&program).unwrap();
    let r0 = machine.start(id, XdpInput::new([0; 64])).run();
    assert_eq!(r0.map(u64::cast_signed), Ok(-i64::from(Errno::ENOENT.0)));
}

#[test]
fn per_cpu_values_are_each_cpus_own() {
    let machine = Machine::with_cpus(3);
    let def = map("array", MapType::PerCpuArray, (4, 16), 1);
    let program = program(ProgramKind::Xdp, &[def], |a| {
        let found = a.label();
        a.st_w(Reg::R10, -4, 0).load_map(Reg::R1, "array");
        a.mov64(Reg::R2, Reg::R10).add64_imm(Reg::R2, -4).call(1);
        a.jne64_imm(Reg::R0, 0, found).exit();
        a.bind(found)
            .mov64(Reg::R6, Reg::R0)
            .call(8)
            .add64_imm(Reg::R0, 10);
        a.stx_dw(Reg::R6, 0, Reg::R0).exit();
    });
    let id = machine.load(&program).unwrap();
    for cpu in [2, 1] {
        machine
            .start_on(cpu, id, XdpInput::new([0; 64]))
            .run()
            .unwrap();
    }
    let map = machine.map("array").unwrap();
    let value = |cpu| map.lookup_on(cpu, &[0; 4]).unwrap().unwrap()[0];
    assert_eq!([value(0), value(1), value(2)], [0, 11, 12]);
}

/// The kernel's rules of kernel/bpf/ringbuf.c: order of reservation, a busy record stops the reader, a full ring, wrapping.
#[test]
fn a_ring_gives_records_in_the_order_of_their_reservations() {
    let machine = Machine::with_cpus(2);
    let def = ring();
    let program = program(ProgramKind::Xdp, std::slice::from_ref(&def), |a| {
        let found = a.label();
        a.mov64(Reg::R6, Reg::R1).load_map(Reg::R1, "ring");
        a.mov64_imm(Reg::R2, 1000).mov64_imm(Reg::R3, 0).call(131);
        a.jne64_imm(Reg::R0, 0, found).exit();
        a.bind(found)
            .ldx_w(Reg::R2, Reg::R6, 12)
            .stx_dw(Reg::R0, 0, Reg::R2);
        // Discarded on interface 9.
        let submit = a.label();
        a.mov64(Reg::R1, Reg::R0)
            .jne64_imm(Reg::R2, 9, submit)
            .mov64_imm(Reg::R2, 0);
        a.call(133).mov64_imm(Reg::R0, 3).exit();
        a.bind(submit)
            .mov64_imm(Reg::R2, 0)
            .call(132)
            .mov64_imm(Reg::R0, 2)
            .exit();
    });
    let id = machine.load(&program).unwrap();
    let input = |ifindex| XdpInput {
        ingress_ifindex: ifindex,
        ..XdpInput::new([0; 64])
    };
    let ring = machine.map("ring").unwrap();
    let mut first = machine.start_on(0, id, input(1));
    while ring.ring_positions().unwrap().0 == 0 {
        first.step().unwrap();
    }
    assert_eq!(machine.start_on(1, id, input(2)).run(), Ok(2));
    assert_eq!(ring.consume(), Ok(None), "the first is still reserved");
    // The consumer wasn't at the second: nobody was woken.
    assert_eq!(ring.ring_wakeups(), Ok(0));
    assert_eq!(first.run(), Ok(2));
    assert_eq!(ring.ring_wakeups(), Ok(1));
    let taken = |n: u64| {
        let record = ring.consume().unwrap().unwrap();
        assert_eq!((record.bytes.len(), record.bytes[0]), (1000, n as u8));
        record.position
    };
    assert_eq!((taken(1), taken(2)), (0, 1008));
    // Around the end, with a discarded one in between.
    for ifindex in [3, 9, 4] {
        machine.start(id, input(ifindex)).run().unwrap();
    }
    assert_eq!((taken(3), taken(4)), (2016, 4032));
    assert_eq!(ring.consume(), Ok(None));
    // Four of 1008 bytes fit, and no more.
    for expected in [2, 2, 2, 2, 0] {
        assert_eq!(machine.start(id, input(1)).run(), Ok(expected));
    }
}

#[test]
fn a_tail_call_leads_to_the_program_in_the_table_33_times_at_most() {
    let machine = Machine::new();
    let table = map("table", MapType::ProgArray, (4, 4), 2);
    let caller = program(ProgramKind::Xdp, &[table], |a| {
        a.load_map(Reg::R2, "table").mov64_imm(Reg::R3, 1).call(12);
        a.mov64_imm(Reg::R0, 1).exit();
    });
    let callee = program(ProgramKind::Xdp, &[], |a| {
        a.ldx_w(Reg::R0, Reg::R1, 12).exit();
    });
    let caller = machine.load(&caller).unwrap();
    let callee = machine.load(&callee).unwrap();
    let table = machine.map("table").unwrap();
    let run = || machine.start(caller, XdpInput::new([0; 64])).run();
    assert_eq!(run(), Ok(1), "an empty place");
    table.set_program(1, Some(callee)).unwrap();
    let input = XdpInput {
        ingress_ifindex: 77,
        ..XdpInput::new([0; 64])
    };
    assert_eq!(machine.start(caller, input).run(), Ok(77));
    assert!(table.set_program(2, Some(callee)).is_err());
    // Round and round: 33 times.
    table.set_program(1, Some(caller)).unwrap();
    assert_eq!(run(), Ok(1));
}

#[test]
fn definitions_that_a_kernel_refuses() {
    let machine = Machine::new();
    for def in [
        map("m", MapType::Array, (8, 8), 1),
        map("m", MapType::Array, (4, 0), 1),
        map("m", MapType::Array, (4, 8), 0),
        map("m", MapType::RingBuf, (0, 0), 4095),
        map("m", MapType::LpmTrie, (8, 8), 1),
        map("m", MapType::Array, (4, 1 << 20), 1 << 20),
    ] {
        let error = machine.create_map(&def).unwrap_err();
        assert!(matches!(error, MapError::Definition { .. }), "{def:?}");
    }
    machine.create_map(&array()).unwrap();
    let other = map("array", MapType::Array, (4, 8), 1);
    let error = machine.create_map(&other).unwrap_err();
    assert_eq!(error, MapError::Conflict("array".to_owned()));
    assert!(matches!(machine.map("none"), Err(MapError::Unknown(_))));
}
