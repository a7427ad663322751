//! Every map type that programs use by themselves, with typed keys and values.

use aya::maps::lpm_trie::Key;
use aya::maps::{HashMap, LpmTrie as LoadedTrie, PerCpuHashMap};
use bpf_asm::builder::{
    Array, ArrayOfMaps, BPF_ANY, BPF_EXIST, BPF_NOEXIST, Bloom, CpuMap, DevMap, Hash, HashOfMaps,
    LpmKey, LpmTrie, Queue, Stack, XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX, XskMap,
    xdp,
};
use bpf_asm::field;
use bpf_asm::program::MapType;

use crate::kernel::{Running, is_root};

#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Flow {
    source: u32,
    port: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Count {
    packets: u64,
    bytes: u64,
}

/// Counts by a struct as the key; the answer is the count, or 100 for the first packet.
fn counting(table: Hash<Flow, Count>) -> bpf_asm::program::Program {
    let program = xdp("flows", |f| {
        let packet = f.packet();
        let view = packet.view::<[u32; 4]>(0, || f.ret(XDP_ABORTED));
        let key = f.stack::<Flow>();
        key.store(field!(Flow, source), view.element(0).read());
        key.store(field!(Flow, port), view.element(1).read());
        let count = table.lookup(f, key, || {
            let first = f.stack::<Count>();
            first.store(field!(Count, packets), 1u64);
            first.store(field!(Count, bytes), 64u64);
            let failed = table.update(f, key, first, BPF_NOEXIST);
            f.if_(failed.ne(0i64), || f.ret(XDP_ABORTED));
            f.ret(100u32);
        });
        count.atomic_add(field!(Count, packets), 1u64);
        f.if_(count.load(field!(Count, packets)).eq(4u64), || {
            let gone = table.delete(f, key);
            f.ret(gone.cast::<u32>() + 200u32);
        });
        f.ret(count.load(field!(Count, packets)).cast::<u32>());
    });
    program.unwrap()
}

#[test]
fn hash_tables_of_every_kind_add_find_and_remove() {
    if !is_root() {
        return;
    }
    for table in [
        Hash::new("flows_map", 8),
        Hash::new("flows_map", 8).no_prealloc(),
        Hash::lru("flows_map", 8),
        Hash::per_cpu("flows_map", 8),
        Hash::lru_per_cpu("flows_map", 8),
    ] {
        // Test runs stay on one CPU for as long as each takes only: per-CPU counts may be spread.
        let mut running = Running::new(counting(table));
        assert_eq!(running.verdict(), 100, "{table:?}");
        let again = running.verdict();
        assert!(
            again == 2 || (again == 1 && format!("{table:?}").contains("PerCpu")),
            "{table:?}"
        );
        if let Ok(map) =
            HashMap::<_, [u32; 2], [u64; 2]>::try_from(running.ebpf.map("flows_map").unwrap())
        {
            assert_eq!(map.get(&[0, 0], 0).unwrap(), [2, 64]);
            assert_eq!(
                [running.verdict(), running.verdict(), running.verdict()],
                [3, 200, 100]
            );
        } else {
            let map = running.ebpf.map("flows_map").unwrap();
            let map = PerCpuHashMap::<_, [u32; 2], [u64; 2]>::try_from(map).unwrap();
            let sum: u64 = map.get(&[0, 0], 0).unwrap().iter().map(|v| v[0]).sum();
            assert_eq!(sum, 2, "{table:?}");
        }
    }
}

#[test]
fn keys_and_values_that_fit_a_register_need_no_place() {
    if !is_root() {
        return;
    }
    const SQUARES: Hash<u32, u64> = Hash::new("squares", 16);
    let program = xdp("square", |f| {
        f.loop_up_to(8, |number, _| {
            SQUARES.update(f, number.cast::<u32>(), number * number, BPF_ANY);
        });
        let missing = SQUARES.update(f, 99u32, 1u64, BPF_EXIST);
        f.if_(!missing.is_negative(), || f.ret(XDP_ABORTED));
        let seven = SQUARES.lookup(f, 7u32, || f.ret(XDP_ABORTED));
        f.ret(seven.read().cast::<u32>());
    });
    assert_eq!(Running::new(program.unwrap()).verdict(), 49);
}

#[test]
fn the_longest_prefix_wins() {
    if !is_root() {
        return;
    }
    const ROUTES: LpmTrie<[u8; 4], u32> = LpmTrie::new("routes", 8);
    let program = xdp("route", |f| {
        let packet = f.packet();
        let address = packet
            .view::<[[u8; 4]; 4]>(0, || f.ret(XDP_ABORTED))
            .element(0);
        let key = f.stack::<LpmKey<[u8; 4]>>();
        key.store(field!(LpmKey<[u8; 4]>, prefix_len), 32u32);
        let data = key.at(field!(LpmKey<[u8; 4]>, data));
        (0..4).for_each(|at| data.element(at).write(address.element(at).read()));
        let route = ROUTES.lookup(f, key, || f.ret(XDP_DROP));
        f.ret(route.read());
    });
    let mut running = Running::new(program.unwrap());
    let map = running.ebpf.map_mut("routes").unwrap();
    let mut routes = LoadedTrie::<_, [u8; 4], u32>::try_from(map).unwrap();
    routes.insert(&Key::new(8, [10, 0, 0, 0]), 8, 0).unwrap();
    routes.insert(&Key::new(24, [10, 1, 2, 0]), 24, 0).unwrap();
    for (address, answer) in [
        ([10, 1, 2, 3], 24),
        ([10, 9, 9, 9], 8),
        ([11, 1, 2, 3], XDP_DROP),
    ] {
        let mut packet = [0; 64];
        packet[..4].copy_from_slice(&address);
        assert_eq!(running.run(&packet).0, answer);
    }
}

#[test]
fn queues_give_the_first_stacks_the_last_and_bloom_filters_what_may_be() {
    if !is_root() {
        return;
    }
    const QUEUE: Queue<u64> = Queue::new("queue", 4);
    const STACK: Stack<u64> = Stack::new("stack", 4);
    const SEEN: Bloom<u64> = Bloom::new("seen", 64);
    let program = xdp("ends", |f| {
        for number in 1..=5u64 {
            let full = QUEUE.push(f, number, 0u64);
            let overwritten = STACK.push(f, number, BPF_EXIST);
            SEEN.add(f, number);
            if number == 5 {
                f.if_(!full.is_negative() | overwritten.ne(0i64), || {
                    f.ret(XDP_ABORTED)
                });
            }
        }
        let into = f.stack::<u64>();
        into.write(0u64);
        let sum = f.var(0u64);
        QUEUE.pop(f, into);
        sum.set(into.read());
        QUEUE.peek(f, into);
        sum.set(sum.get() * 10u64 + into.read());
        STACK.pop(f, into);
        sum.set(sum.get() * 10u64 + into.read());
        STACK.peek(f, into);
        sum.set(sum.get() * 10u64 + into.read());
        f.if_(
            !SEEN.may_hold(f, 5u64) | SEEN.may_hold(f, 1u64 << 60),
            || f.ret(XDP_ABORTED),
        );
        f.ret(sum.get().cast::<u32>());
    });
    assert_eq!(Running::new(program.unwrap()).verdict(), 1254);
}

#[test]
fn redirect_maps_say_what_to_do_when_nothing_is_there() {
    if !is_root() {
        return;
    }
    const DEVICES: DevMap = DevMap::new("devices", 4);
    const BY_HASH: DevMap = DevMap::hash("by_hash", 4);
    const CPUS: CpuMap = CpuMap::new("cpus", 4);
    const SOCKETS: XskMap = XskMap::new("sockets", 4);
    let program = xdp("nowhere", |f| {
        let sum = f.var(0u32);
        let add = |action: bpf_asm::builder::Val<'_, u32>| {
            sum.set((sum.get() << 4u32) | action);
        };
        add(DEVICES.redirect(f, 1u32, u64::from(XDP_TX)));
        add(BY_HASH.redirect(f, 1u32, u64::from(XDP_PASS)));
        add(CPUS.redirect(f, 1u32, u64::from(XDP_DROP)));
        add(SOCKETS.redirect(f, 1u32, u64::from(XDP_PASS)));
        f.ret(sum.get());
    });
    assert_eq!(Running::new(program.unwrap()).verdict(), 0x3212);
}

#[test]
fn a_device_in_the_map_is_where_the_packet_goes() {
    if !is_root() {
        return;
    }
    const DEVICES: DevMap = DevMap::new("devices", 4);
    let program = xdp("there", |f| f.ret(DEVICES.redirect(f, 2u32, 0u64)));
    let mut running = Running::new(program.unwrap());
    let map = running.ebpf.map_mut("devices").unwrap();
    let mut devices = aya::maps::DevMap::try_from(map).unwrap();
    // The loopback device.
    devices.set(2, 1, None, 0).unwrap();
    assert_eq!(running.verdict(), XDP_REDIRECT);
}

#[test]
fn maps_in_maps_are_found_and_used_by_their_type() {
    if !is_root() {
        return;
    }
    const OUTER: ArrayOfMaps<Array<u64>> = ArrayOfMaps::new("outer", 2, Array::new("inner", 4));
    const BY_KEY: HashOfMaps<Hash<u32, u64>> = HashOfMaps::new("by_key", 2, Hash::new("table", 8));
    let program = xdp("nested", |f| {
        let inner = OUTER.lookup(f, 1u32, || f.ret(XDP_DROP));
        let value = inner.lookup(3u32, || f.ret(XDP_ABORTED));
        value.write(value.read() + 40u64);
        let table = BY_KEY.lookup(f, 77u32, || f.ret(XDP_PASS));
        table.update(5u32, value.read(), BPF_ANY);
        let found = table.lookup(5u32, || f.ret(XDP_ABORTED));
        f.ret(found.read().cast::<u32>());
    })
    .unwrap();
    let types: Vec<MapType> = program.maps.iter().map(|map| map.map_type).collect();
    assert_eq!(types, [MapType::ArrayOfMaps, MapType::HashOfMaps]);
    let mut running = Running::new(program);
    assert_eq!(running.verdict(), XDP_DROP);
    let inner = aya::maps::Array::<aya::maps::MapData, u64>::create(4, 0).unwrap();
    let map = running.ebpf.map_mut("outer").unwrap();
    let mut outer =
        aya::maps::ArrayOfMaps::<_, aya::maps::Array<aya::maps::MapData, u64>>::try_from(map)
            .unwrap();
    outer.set(1, &inner, 0).unwrap();
    assert_eq!(running.verdict(), XDP_PASS);
    let table = HashMap::<aya::maps::MapData, u32, u64>::create(8, 0).unwrap();
    let map = running.ebpf.map_mut("by_key").unwrap();
    let mut by_key =
        aya::maps::HashOfMaps::<_, u32, HashMap<aya::maps::MapData, u32, u64>>::try_from(map)
            .unwrap();
    by_key.insert(77, &table, 0).unwrap();
    assert_eq!(running.verdict(), 80);
    assert_eq!(inner.get(&3, 0).unwrap(), 80);
    assert_eq!(table.get(&5, 0).unwrap(), 80);
}
