//! The smallest echo there is: an XDP program that sends a datagram back where it came from.

use bpf_asm::asm::{AsmError, Assembler};
use bpf_asm::insn::Reg;
use bpf_asm::program::{Program, ProgramKind};

const XDP_PASS: i32 = 2;
const XDP_TX: i32 = 3;

/// Ethernet, IPv4 without options, UDP.
const HEADERS_BYTES: i32 = 14 + 20 + 8;

/// Sends every IPv4 UDP datagram for `port` back to its sender and leaves all else alone.
pub(super) fn program(port: u16) -> Result<Program, AsmError> {
    let (data, end, a, b) = (Reg::R2, Reg::R3, Reg::R4, Reg::R5);
    let mut code = Assembler::new("echo");
    let pass = code.label();
    code.ldx_w(data, Reg::R1, 0).ldx_w(end, Reg::R1, 4);
    code.mov64(a, data).add64_imm(a, HEADERS_BYTES);
    code.jgt64(a, end, pass);
    // Ethertype IPv4; version 4 and five words of header; UDP; the port.
    code.ldx_h(a, data, 12).be16(a).jne64_imm(a, 0x0800, pass);
    code.ldx_b(a, data, 14).jne64_imm(a, 0x45, pass);
    code.ldx_b(a, data, 23).jne64_imm(a, 17, pass);
    code.ldx_h(a, data, 36).be16(a);
    code.jne64_imm(a, port.into(), pass);
    // Ethernet addresses, IP addresses and ports change places.
    code.ldx_w(a, data, 0).ldx_w(b, data, 6);
    code.stx_w(data, 0, b).stx_w(data, 6, a);
    code.ldx_h(a, data, 4).ldx_h(b, data, 10);
    code.stx_h(data, 4, b).stx_h(data, 10, a);
    code.ldx_w(a, data, 26).ldx_w(b, data, 30);
    code.stx_w(data, 26, b).stx_w(data, 30, a);
    code.ldx_h(a, data, 34).ldx_h(b, data, 36);
    code.stx_h(data, 34, b).stx_h(data, 36, a);
    // A local sender leaves only the pseudo-header's sum here. None at all is legal, and true.
    code.st_h(data, 40, 0);
    code.mov64_imm(Reg::R0, XDP_TX).exit();
    code.bind(pass).mov64_imm(Reg::R0, XDP_PASS).exit();
    Ok(Program {
        kind: ProgramKind::Xdp,
        main: code.finish()?,
        subprograms: Vec::new(),
        maps: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_echo_assembles_for_every_port() {
        for port in [1, 7077, u16::MAX] {
            super::program(port).unwrap();
        }
    }
}
