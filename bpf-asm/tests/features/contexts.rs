//! Every field of the contexts that the builder has, read, and written where that is allowed.

use bpf_asm::builder::{TC_ACT_OK, XDP_PASS, classifier, xdp};

use crate::kernel::{Running, is_root};

#[test]
fn every_field_of_an_xdp_context_can_be_read() {
    if !is_root() {
        return;
    }
    let program = xdp("fields", |f| {
        let sum = f.ingress_ifindex() + f.rx_queue_index();
        f.if_(f.buffer_len().ne(64u64), || f.ret(0u32));
        // Test runs come from the loopback device or from none.
        f.if_(sum.le(1u32), || f.ret(XDP_PASS));
        f.ret(sum);
    });
    assert_eq!(Running::new(program.unwrap()).verdict(), XDP_PASS);
}

#[test]
fn every_field_of_a_socket_buffer_can_be_read_and_the_open_ones_written() {
    if !is_root() {
        return;
    }
    let program = classifier("fields", |f| {
        f.set_mark(11u32);
        f.set_priority(12u32);
        f.set_tc_index(13u32);
        f.set_tc_classid(14u32);
        f.set_queue_mapping(15u32);
        (0..5).for_each(|number| f.set_cb(number, 16 + number as u32));
        f.set_timestamp(21u64);
        let mut written = [
            f.mark(),
            f.priority(),
            f.tc_index(),
            f.tc_classid(),
            f.queue_mapping(),
        ]
        .to_vec();
        written.extend((0..5).map(|number| f.cb(number)));
        for (value, expected) in written.into_iter().zip(11u32..) {
            f.if_(value.ne(expected), || f.ret(expected));
        }
        f.if_(f.timestamp().ne(21u64), || f.ret(21u32));
        f.if_(f.len().ne(64u32), || f.ret(22u32));
        let rest = [
            f.packet_type(),
            f.vlan_present(),
            f.vlan_tci(),
            f.ingress_ifindex(),
            f.ifindex(),
            f.hash(),
            f.napi_id(),
            f.gso_segs(),
            f.gso_size(),
            f.hash_recalc(),
        ];
        let sum = rest.into_iter().fold(f.value(0u32), |sum, word| sum | word);
        f.if_(sum.eq(0xffff_ffffu32), || f.ret(23u32));
        f.set_hash_invalid();
        f.ret(TC_ACT_OK);
    });
    assert_eq!(Running::new(program.unwrap()).verdict(), TC_ACT_OK);
}
