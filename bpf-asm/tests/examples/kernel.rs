//! The examples in the kernel: loaded by aya, and the same answers as on the harness. Needs root, and says so without it.

use std::os::unix::fs::MetadataExt;

use aya::programs::{TestRun, TestRunOptions, Xdp};
use bpf_asm::harness::Harness;
use bpf_asm::object::Object;
use bpf_asm::program::Program;

use crate::frames::mixed;
use crate::harness::{server, service};
use crate::{echo, load_balancer, lpm_firewall, packet_counter, syn_flood};

/// What user space puts into a map: its name, and entries.
type Entries<'a> = (&'a str, Vec<(Vec<u8>, Vec<u8>)>);

fn agrees(program: Program, entries: &[Entries<'_>]) {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        let note = b"SKIPPED: loading programs needs root\n";
        let _ = std::io::Write::write_all(&mut std::io::stderr(), note);
        return;
    }
    let name = program.main.name.clone();
    let harness = Harness::new([program.clone()]).unwrap();
    let elf = Object::new("GPL").program(program).to_elf().unwrap();
    let mut ebpf = aya::Ebpf::load(&elf).unwrap();
    for (map, entries) in entries {
        for (key, value) in entries {
            harness.map(map).unwrap().update(key, value).unwrap();
            put(ebpf.map_mut(map).unwrap(), key, value);
        }
    }
    let loaded: &mut Xdp = ebpf.program_mut(&name).unwrap().try_into().unwrap();
    loaded.load().unwrap();
    for frame in mixed() {
        let mut out = vec![0; 256];
        let options = TestRunOptions {
            data_in: Some(&frame),
            data_out: Some(&mut out),
            ..TestRunOptions::default()
        };
        let result = loaded.test_run(options).unwrap();
        out.truncate(result.data_size_out as usize);
        let outcome = harness.xdp(&name, frame.clone()).unwrap();
        let (verdict, packet) = (outcome.verdict, outcome.packet);
        assert_eq!((result.return_value, out), (verdict, packet), "{frame:x?}");
    }
}

fn put(map: &mut aya::maps::Map, key: &[u8], value: &[u8]) {
    use aya::maps::{Array, HashMap, LpmTrie, Map, lpm_trie::Key};
    match map {
        Map::Array(_) => {
            let mut array = Array::<_, [u8; 16]>::try_from(map).unwrap();
            let index = u32::from_ne_bytes(key.try_into().unwrap());
            array
                .set(index, <[u8; 16]>::try_from(value).unwrap(), 0)
                .unwrap();
        }
        Map::HashMap(_) => {
            let mut table = HashMap::<_, [u8; 8], [u8; 4]>::try_from(map).unwrap();
            let key = <[u8; 8]>::try_from(key).unwrap();
            table
                .insert(key, <[u8; 4]>::try_from(value).unwrap(), 0)
                .unwrap();
        }
        Map::LpmTrie(_) => {
            let mut trie = LpmTrie::<_, [u8; 4], [u8; 8]>::try_from(map).unwrap();
            let bits = u32::from_ne_bytes(key[..4].try_into().unwrap());
            let key = Key::new(bits, key[4..].try_into().unwrap());
            trie.insert(&key, <[u8; 8]>::try_from(value).unwrap(), 0)
                .unwrap();
        }
        other => panic!("no example has {other:?}"),
    }
}

#[test]
fn packet_counter_answers_as_on_the_harness() {
    agrees(packet_counter::program().unwrap(), &[]);
}

#[test]
fn lpm_firewall_answers_as_on_the_harness() {
    let key = [24u32.to_ne_bytes(), [192, 0, 2, 0]].concat();
    let entries = vec![(key, vec![0; 8])];
    agrees(lpm_firewall::program().unwrap(), &[("blocked", entries)]);
}

#[test]
fn load_balancer_answers_as_on_the_harness() {
    let services = vec![(service().to_vec(), vec![3, 0, 0, 0])];
    let servers = (0..16u8).map(|number| {
        let index = 3 * load_balancer::SERVERS_EACH + u32::from(number);
        (index.to_ne_bytes().to_vec(), server(number).to_vec())
    });
    let entries = [("services", services), ("servers", servers.collect())];
    agrees(load_balancer::program().unwrap(), &entries);
}

#[test]
fn syn_flood_answers_as_on_the_harness() {
    agrees(syn_flood::program().unwrap(), &[]);
}

#[test]
fn echo_answers_as_on_the_harness() {
    agrees(echo::program().unwrap(), &[]);
}
