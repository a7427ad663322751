//! The program behind [`super::Faults`]: a classifier on the egress of a host's port.
//!
//! ```text
//!   a packet ── our own copy? ──────────────────────────────────────▶ pass
//!      │
//!      ├─ one is held back: send a copy of this one first, turn this one into the held one ──▶ pass
//!      │
//!      └─ draw: drop? flip a bit? send a copy? hold back?  ──▶ pass, or gone
//! ```
//! There is no way to keep a packet itself, so a held one is kept as bytes, and leaves in the body of the next.

use bpf_asm::asm::{Assembler, Label};
use bpf_asm::insn::Reg as R;
use bpf_asm::program::{Contents, MapDef, MapType, Program, ProgramKind};

use crate::LabError;
use crate::program::refused;

/// `[u32; 5]`: drop, corrupt, duplicate, reorder, of 1024; and the source port of those concerned, 0 for all.
pub(super) const SHARES: &str = "shares";
/// `[u64; 4]`, in the same order.
pub(super) const COUNTS: &str = "counts";
/// The packet that is held back: see [`STATE`], [`LENGTH`] and [`BYTES`].
const HELD: &str = "held";

/// Offsets in [`HELD`]. The state is changed by atomics only: several CPUs may send to one port.
const STATE: i16 = 0;
const LENGTH: i16 = 8;
const BYTES: i16 = 16;

/// The longest packet that is held back: any that a lab's MTU lets through, in practice.
const LONGEST: i32 = 2048;
/// An Ethernet header: the shortest packet, and what is never damaged (a wire's own check would drop that).
const ETHERNET_BYTES: i32 = 14;

/// States of the held packet.
const EMPTY: i32 = 0;
const BUSY: i32 = 1;
const FULL: i32 = 2;

/// Offsets in `struct __sk_buff`.
const SKB_LEN: i16 = 0;
const SKB_MARK: i16 = 8;
const SKB_PROTOCOL: i16 = 16;
const SKB_IFINDEX: i16 = 40;

/// Ethertypes as they read from the little-endian `protocol` field.
const IPV4: i32 = 0x0008;
const IPV6: i32 = 0xdd86;

/// The mark of copies, which come by here again.
const COPY: i32 = 0x001a_bc09;

/// Verdicts.
const PASS: i32 = 0;
const GONE: i32 = 2;

/// Helpers, by the kernel's numbers.
const MAP_LOOKUP: u32 = 1;
const PRANDOM: u32 = 7;
const STORE_BYTES: u32 = 9;
const CLONE_REDIRECT: u32 = 13;
const LOAD_BYTES: u32 = 26;
const CHANGE_TAIL: u32 = 38;

/// Registers that live through the whole program.
const SKB: R = R::R6;
const SHARE: R = R::R7;
const COUNT: R = R::R8;
const SLOT: R = R::R9;

/// Offset of the source port in [`SHARES`].
const PORT: i16 = 16;

/// UDP's number in an IP header.
const UDP: i32 = 17;

/// The stack word that a key or a byte is kept in.
const SCRATCH: i16 = -8;

/// The program with its maps.
pub(super) fn program() -> Result<Program, LabError> {
    let mut code = Assembler::new("lab_faults");
    let c = &mut code;
    let [pass, gone, ip, fresh] = [c.label(), c.label(), c.label(), c.label()];
    c.mov64(SKB, R::R1);
    let own = c.label();
    c.ldx_w(R::R2, SKB, SKB_MARK).jeq32_imm(R::R2, COPY, own);
    c.ldx_w(R::R2, SKB, SKB_PROTOCOL).jeq32_imm(R::R2, IPV4, ip);
    c.jne32_imm(R::R2, IPV6, pass).bind(ip);
    for (map, register) in [(SHARES, SHARE), (COUNTS, COUNT), (HELD, SLOT)] {
        c.st_w(R::R10, SCRATCH, 0).load_map(R::R1, map);
        c.mov64(R::R2, R::R10).add64_imm(R::R2, SCRATCH.into());
        c.call(MAP_LOOKUP).jeq64_imm(R::R0, 0, pass);
        c.mov64(register, R::R0);
    }
    release(c, fresh, pass, gone);
    c.bind(fresh);
    spare_other_ports(c, pass);
    draw_drop(c, gone);
    draw_corrupt(c);
    draw_duplicate(c);
    draw_reorder(c, gone);
    c.bind(pass).mov64_imm(R::R0, PASS).exit();
    c.bind(gone).mov64_imm(R::R0, GONE).exit();
    // The mark is ours alone; the host behind the port shall not see it.
    c.bind(own).mov64_imm(R::R2, 0);
    c.stx_w(SKB, SKB_MARK, R::R2);
    c.mov64_imm(R::R0, PASS).exit();
    let main = code
        .finish()
        .map_err(refused("assembling the faults' program"))?;
    let array = |name: &str, value_size| MapDef {
        name: name.to_owned(),
        map_type: MapType::Array,
        key_size: 4,
        value_size,
        max_entries: 1,
        flags: 0,
        contents: Contents::Empty,
    };
    Ok(Program {
        kind: ProgramKind::Classifier,
        main,
        subprograms: Vec::new(),
        maps: vec![
            array(SHARES, 20),
            array(COUNTS, 32),
            array(
                HELD,
                u32::from(BYTES.unsigned_abs()) + LONGEST.unsigned_abs(),
            ),
        ],
    })
}

/// If a packet is held back: this one goes first, as a copy, and then becomes the held one.
fn release(c: &mut Assembler, fresh: Label, pass: Label, gone: Label) {
    let lost = c.label();
    take(c, FULL, fresh);
    send_copy(c);
    c.mov64(R::R1, SKB).ldx_dw(R::R2, SLOT, LENGTH);
    c.mov64_imm(R::R3, 0).call(CHANGE_TAIL);
    c.jne64_imm(R::R0, 0, lost);
    c.ldx_dw(R::R4, SLOT, LENGTH);
    c.jlt64_imm(R::R4, ETHERNET_BYTES, lost)
        .jgt64_imm(R::R4, LONGEST, lost);
    c.mov64(R::R1, SKB).mov64_imm(R::R2, 0);
    c.mov64(R::R3, SLOT).add64_imm(R::R3, BYTES.into());
    c.mov64_imm(R::R5, 0).call(STORE_BYTES);
    c.jne64_imm(R::R0, 0, lost);
    count(c, 3);
    put(c, EMPTY);
    c.goto(pass);
    // The copy has left, so what is lost is the held one.
    c.bind(lost);
    put(c, EMPTY);
    c.goto(gone);
}

/// Goes on with datagrams of the source port that is named, and with all if none is.
fn spare_other_ports(c: &mut Assembler, pass: Label) {
    let [all, ipv4, protocol, other] = [c.label(), c.label(), c.label(), pass];
    c.ldx_w(R::R1, SHARE, PORT).jeq32_imm(R::R1, 0, all);
    // Where the protocol's number stands, and where the UDP header begins.
    c.mov64_imm(R::R2, ETHERNET_BYTES + 9);
    c.st_dw(R::R10, 2 * SCRATCH, ETHERNET_BYTES + 20);
    c.ldx_w(R::R1, SKB, SKB_PROTOCOL)
        .jeq32_imm(R::R1, IPV4, ipv4);
    c.mov64_imm(R::R2, ETHERNET_BYTES + 6);
    c.st_dw(R::R10, 2 * SCRATCH, ETHERNET_BYTES + 40);
    c.bind(ipv4).st_dw(R::R10, SCRATCH, 0).mov64(R::R1, SKB);
    scratch_byte(c, R::R3);
    c.mov64_imm(R::R4, 1).call(LOAD_BYTES);
    c.jne64_imm(R::R0, 0, other)
        .ldx_b(R::R1, R::R10, SCRATCH)
        .jeq64_imm(R::R1, UDP, protocol);
    c.goto(other).bind(protocol);
    c.mov64(R::R1, SKB).ldx_dw(R::R2, R::R10, 2 * SCRATCH);
    scratch_byte(c, R::R3);
    c.mov64_imm(R::R4, 2).call(LOAD_BYTES);
    c.jne64_imm(R::R0, 0, other);
    c.ldx_h(R::R1, R::R10, SCRATCH).be16(R::R1);
    c.ldx_w(R::R2, SHARE, PORT).jne64(R::R1, R::R2, other);
    c.bind(all);
}

fn draw_drop(c: &mut Assembler, gone: Label) {
    let spared = draw(c, 0);
    count(c, 0);
    c.goto(gone).bind(spared);
}

/// Flips one bit.
fn draw_corrupt(c: &mut Assembler) {
    let spared = draw(c, 1);
    c.ldx_w(R::R1, SKB, SKB_LEN)
        .jle64_imm(R::R1, ETHERNET_BYTES, spared);
    // Which byte, kept on the stack over the calls.
    c.call(PRANDOM).ldx_w(R::R1, SKB, SKB_LEN);
    c.sub64_imm(R::R1, ETHERNET_BYTES)
        .mod64(R::R0, R::R1)
        .add64_imm(R::R0, ETHERNET_BYTES);
    c.stx_dw(R::R10, 2 * SCRATCH, R::R0);
    c.st_dw(R::R10, SCRATCH, 0);
    c.mov64(R::R1, SKB).mov64(R::R2, R::R0);
    scratch_byte(c, R::R3);
    c.mov64_imm(R::R4, 1).call(LOAD_BYTES);
    c.jne64_imm(R::R0, 0, spared);
    c.call(PRANDOM).and64_imm(R::R0, 7);
    c.mov64_imm(R::R1, 1).lsh64(R::R1, R::R0);
    c.ldx_b(R::R2, R::R10, SCRATCH).xor64(R::R2, R::R1);
    c.stx_b(R::R10, SCRATCH, R::R2);
    c.mov64(R::R1, SKB).ldx_dw(R::R2, R::R10, 2 * SCRATCH);
    scratch_byte(c, R::R3);
    c.mov64_imm(R::R4, 1).mov64_imm(R::R5, 0).call(STORE_BYTES);
    c.jne64_imm(R::R0, 0, spared);
    count(c, 1);
    c.bind(spared);
}

fn draw_duplicate(c: &mut Assembler) {
    let spared = draw(c, 2);
    send_copy(c);
    count(c, 2);
    c.bind(spared);
}

/// Keeps the packet's bytes for later, and lets the packet go.
fn draw_reorder(c: &mut Assembler, gone: Label) {
    let [full, unfit, spared, sum] = [c.label(), c.label(), draw(c, 3), c.label()];
    take(c, EMPTY, full);
    c.ldx_w(R::R4, SKB, SKB_LEN);
    c.jlt64_imm(R::R4, ETHERNET_BYTES, unfit)
        .jgt64_imm(R::R4, LONGEST, unfit);
    c.stx_dw(SLOT, LENGTH, R::R4);
    c.mov64(R::R1, SKB).mov64_imm(R::R2, 0);
    c.mov64(R::R3, SLOT).add64_imm(R::R3, BYTES.into());
    c.call(LOAD_BYTES).jne64_imm(R::R0, 0, unfit);
    // A local sender leaves only the pseudo-header's sum, and a note on the packet that the rest is missing; the packet
    // in whose body this one leaves may lack that note. Over IPv4 no sum at all is legal.
    c.ldx_h(R::R1, SLOT, BYTES + 12).jne64_imm(R::R1, IPV4, sum);
    c.ldx_b(R::R1, SLOT, BYTES + 14).jne64_imm(R::R1, 0x45, sum);
    c.ldx_h(R::R1, SLOT, BYTES + 20)
        .be16(R::R1)
        .and64_imm(R::R1, 0x3fff);
    c.jne64_imm(R::R1, 0, sum);
    c.ldx_b(R::R1, SLOT, BYTES + 23).jne64_imm(R::R1, 17, sum);
    c.st_h(SLOT, BYTES + 40, 0).bind(sum);
    put(c, FULL);
    c.goto(gone);
    c.bind(unfit);
    put(c, EMPTY);
    c.bind(full).bind(spared);
}

/// Goes on with the share `index` of all packets, and to the label with the others.
fn draw(c: &mut Assembler, index: i16) -> Label {
    let spared = c.label();
    c.call(PRANDOM).and64_imm(R::R0, 1023);
    c.ldx_w(R::R1, SHARE, 4 * index);
    c.jge64(R::R0, R::R1, spared);
    spared
}

fn count(c: &mut Assembler, index: i16) {
    c.mov64_imm(R::R1, 1).atomic_add64(COUNT, 8 * index, R::R1);
}

/// Takes the slot from this state to [`BUSY`], or goes to `otherwise`.
fn take(c: &mut Assembler, state: i32, otherwise: Label) {
    c.mov64_imm(R::R0, state).mov64_imm(R::R1, BUSY);
    c.cmpxchg64(SLOT, STATE, R::R1);
    c.jne64_imm(R::R0, state, otherwise);
}

/// Gives the slot back in this state.
fn put(c: &mut Assembler, state: i32) {
    c.mov64_imm(R::R1, state).xchg64(SLOT, STATE, R::R1);
}

/// Sends a copy of the packet right now.
fn send_copy(c: &mut Assembler) {
    c.mov64_imm(R::R2, COPY).stx_w(SKB, SKB_MARK, R::R2);
    c.mov64(R::R1, SKB).ldx_w(R::R2, SKB, SKB_IFINDEX);
    c.mov64_imm(R::R3, 0).call(CLONE_REDIRECT);
    c.mov64_imm(R::R2, 0).stx_w(SKB, SKB_MARK, R::R2);
}

fn scratch_byte(c: &mut Assembler, register: R) {
    c.mov64(register, R::R10)
        .add64_imm(register, SCRATCH.into());
}
