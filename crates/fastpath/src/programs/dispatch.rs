//! `dispatch` (XDP): finds our messages for this replica and goes on in the program for their kind. Everything else is
//! passed untouched.

use bpf_asm::builder::{BuildError, XDP_PASS, xdp};
use bpf_asm::field;
use bpf_asm::program::Program;
use electrode_wire::header::{HEADER_BYTES, Header, Kind as Message};

use super::frames::{is_peer, parse};
use super::{
    PROGRAM_PREPARE, PROGRAM_PREPARE_OK, PROGRAMS, count, header, leave, ordered_tail, shared,
};
use crate::abi::{Block, OP_BITS, PEERS, Shared};
use crate::counters::Counters;

pub(super) fn build() -> Result<Program, BuildError> {
    xdp("dispatch", |f| {
        let foreign = || leave(f, field!(Counters, dispatch_foreign), XDP_PASS);
        let packet = f.packet();
        let parsed = parse(f, &packet, foreign);
        let header = header::view(&packet, parsed.udp, foreign);
        f.require(header::is_ours(header), foreign);
        let length = header
            .load(field!(Header, length))
            .to_native()
            .cast::<u64>();
        f.require(parsed.payload.eq(length + HEADER_BYTES as u64), foreign);

        let shared = shared(f);
        let generation = ordered_tail(shared) >> u64::from(OP_BITS);
        let block = shared.at(field!(Shared, blocks)).index_masked(generation);
        // The own address never changes, so a block that is torn or of another generation says the same.
        let index = block.load(field!(Block, index)).cast::<u64>();
        let own = block
            .at(field!(Block, peers))
            .index(index & (PEERS as u64 - 1), foreign);
        f.require(is_peer(own, parsed.family, parsed.destination), foreign);

        let kind = header.load(field!(Header, kind));
        f.if_(kind.eq(Message::Prepare as u8), || {
            count(f, field!(Counters, dispatch_prepare));
            PROGRAMS.tail_call(f, PROGRAM_PREPARE);
            // Not wanted on this replica: user space takes it.
            f.ret(XDP_PASS);
        });
        f.if_(kind.eq(Message::PrepareOk as u8), || {
            count(f, field!(Counters, dispatch_prepare_ok));
            PROGRAMS.tail_call(f, PROGRAM_PREPARE_OK);
            f.ret(XDP_PASS);
        });
        leave(f, field!(Counters, dispatch_other), XDP_PASS);
    })
}
