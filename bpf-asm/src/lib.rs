//! Write eBPF programs in Rust: assembler, typed builder, ELF and BTF writer; no LLVM.
//!
//! Bottom up: [`insn`] is the instruction set as types, [`asm`] an assembler with labels, [`builder`] structured code
//! with typed values on top of it, [`program`] what both of them produce, [`object`] the ELF file that loaders take,
//! [`btf`] the type information in it, [`disasm`] prints it all as the kernel's verifier does, and [`text`] reads that.
//! [`harness`] runs programs without a kernel.
//!
//! A whole XDP program: it counts UDP datagrams by destination port, drops those to the ports that user space has listed,
//! and passes everything else.
//!
//! ```
//! use bpf_asm::builder::{xdp, Array, Be, Hash, XDP_DROP, XDP_PASS};
//! use bpf_asm::field;
//! use bpf_asm::harness::Harness;
//! use bpf_asm::object::Object;
//! use zerocopy::byteorder::big_endian::U16;
//!
//! bpf_asm::layout! {
//!     struct Ethernet: 14 bytes {
//!         0 => addresses: [u8; 12],
//!         12 => ethertype: U16,
//!     }
//!     struct Ipv4: 20 bytes {
//!         0 => version_length: u8,
//!         1 => before_protocol: [u8; 8],
//!         9 => protocol: u8,
//!         10 => behind_protocol: [u8; 10],
//!     }
//!     struct Udp: 8 bytes {
//!         0 => source: U16,
//!         2 => destination: U16,
//!         4 => length: U16,
//!         6 => checksum: U16,
//!     }
//! }
//! const UDP: u8 = 17;
//!
//! /// By port: how many datagrams came.
//! const COUNTS: Array<u64> = Array::new("counts", 65536);
//! /// Ports whose datagrams are dropped.
//! const CLOSED: Hash<u16, u8> = Hash::new("closed", 1024);
//!
//! let program = xdp("udp_ports", |f| {
//!     let pass = || f.ret(XDP_PASS);
//!     let packet = f.packet();
//!     let ethernet = packet.view::<Ethernet>(0, pass);
//!     f.require(ethernet.load(field!(Ethernet, ethertype)).eq(Be::new(0x0800)), pass);
//!     let ip = packet.view::<Ipv4>(14, pass);
//!     // Headers with options have another length: 5 words is one without.
//!     f.require(ip.load(field!(Ipv4, version_length)).eq(0x45u8), pass);
//!     f.require(ip.load(field!(Ipv4, protocol)).eq(UDP), pass);
//!     let udp = packet.view::<Udp>(14 + 20, pass);
//!     let port = udp.load(field!(Udp, destination)).to_native();
//!     let count = COUNTS.lookup(f, port.widen::<u32>(), pass);
//!     count.write(count.read() + 1u64);
//!     CLOSED.lookup(f, port, pass);
//!     f.ret(XDP_DROP);
//! })?;
//!
//! // In user space, without a kernel:
//! let harness = Harness::new([program.clone()])?;
//! harness.map("closed")?.update(&53u16.to_ne_bytes(), &[1])?;
//! let mut frame = vec![0; 60];
//! frame[12..15].copy_from_slice(&[8, 0, 0x45]);
//! frame[23] = UDP;
//! for (port, verdict) in [(53u16, XDP_DROP), (443, XDP_PASS), (53, XDP_DROP)] {
//!     frame[36..38].copy_from_slice(&port.to_be_bytes());
//!     assert_eq!(harness.xdp("udp_ports", frame.clone())?.verdict, verdict);
//! }
//! let count = harness.map("counts")?.lookup(&53u32.to_ne_bytes())?;
//! assert_eq!(count, Some(2u64.to_ne_bytes().to_vec()));
//!
//! // For aya, libbpf, `ip link set dev eth0 xdp obj udp_ports.o sec xdp`:
//! let elf = Object::new("GPL").program(program).to_elf()?;
//! assert_eq!(&elf[..4], b"\x7fELF");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod asm;
pub mod btf;
pub mod builder;
pub mod code;
pub mod disasm;
pub mod engine;
pub mod harness;
pub mod helper;
pub mod insn;
pub mod interpreter;
pub mod object;
pub mod program;
pub mod target;
pub mod text;
pub mod verifier;
