//! The examples beside their fixtures in C.

use aya::Ebpf;
use aya::maps::{Array, HashMap, LpmTrie, lpm_trie::Key};

use crate::compare::Pair;
use crate::frames::{Frame, TCP, UDP};
use crate::{echo, load_balancer, lpm_firewall, packet_counter, syn_flood};

/// All of them, each with the frame that goes the longest way.
pub(crate) fn pairs() -> Vec<Pair> {
    let udp = Frame::new(UDP, [192, 0, 2, 9]);
    let syn = Frame {
        flags: 0x02,
        ..Frame::new(TCP, [10, 1, 2, 3])
    };
    vec![
        Pair {
            program: packet_counter::program().unwrap(),
            source: "packet_counter.c",
            fill: |_| (),
            frame: udp.bytes(),
        },
        Pair {
            program: lpm_firewall::program().unwrap(),
            source: "lpm_firewall.c",
            fill: block,
            frame: udp.bytes(),
        },
        Pair {
            program: load_balancer::program().unwrap(),
            source: "load_balancer.c",
            fill: serve,
            // Repeated runs grow the packet until there is no room: what is measured is the look-up, then the refusal.
            frame: udp.bytes(),
        },
        Pair {
            program: syn_flood::program().unwrap(),
            source: "syn_flood.c",
            fill: |_| (),
            frame: syn.bytes(),
        },
        Pair {
            program: echo::program().unwrap(),
            source: "echo.c",
            fill: |_| (),
            frame: Frame {
                ports: [7, 7],
                ..udp
            }
            .bytes(),
        },
    ]
}

fn block(ebpf: &mut Ebpf) {
    let map = ebpf.map_mut("blocked").unwrap();
    let mut blocked = LpmTrie::<_, [u8; 4], u64>::try_from(map).unwrap();
    blocked.insert(&Key::new(24, [192, 0, 2, 0]), 0, 0).unwrap();
}

fn serve(ebpf: &mut Ebpf) {
    let map = ebpf.map_mut("services").unwrap();
    let mut services = HashMap::<_, [u8; 8], u32>::try_from(map).unwrap();
    let service = [10, 0, 0, 1, 0, 80, UDP, 0];
    services.insert(service, 3, 0).unwrap();
    let map = ebpf.map_mut("servers").unwrap();
    let mut servers = Array::<_, [u8; 16]>::try_from(map).unwrap();
    for number in 0..16u8 {
        let server = [172, 16, 0, number, 10, 0, 0, 1, 2, 0, 0, 0, 1, number, 0, 0];
        let index = 3 * load_balancer::SERVERS_EACH + u32::from(number);
        servers.set(index, server, 0).unwrap();
    }
}
