//! The typed builder: eBPF programs as Rust closures that write instructions.
//!
//! A program is a closure that is called once and *writes* the program: [`Val`]s are handles of values that exist at run time,
//! their operators write arithmetic, and control flow takes closures that write its parts. Registers, spills and jumps are the
//! crate's business. What can be checked by Rust's types is (byte orders, helpers by program kind, views of the packet that
//! helpers invalidate); the rest is a [`BuildError`] that names the Rust line.
//!
//! ```
//! use bpf_asm::builder::{xdp, Array, Be, XDP_DROP, XDP_PASS};
//! use bpf_asm::field;
//! use zerocopy::byteorder::big_endian::U16;
//!
//! /// The layouts are plain Rust structs; user space uses the same ones.
//! #[repr(C)]
//! struct Ethernet { destination: [u8; 6], source: [u8; 6], ethertype: U16 }
//! #[repr(C)]
//! struct Counts { passed: u64, dropped: u64 }
//!
//! const COUNTS: Array<Counts> = Array::per_cpu("counts", 1);
//!
//! // Drops IPv6, passes everything else, and counts both.
//! let program = xdp("no_ipv6", |f| {
//!     let counts = COUNTS.lookup(f, 0u32, || f.ret(XDP_PASS));
//!     let packet = f.packet();
//!     let ethernet = packet.view::<Ethernet>(0, || f.ret(XDP_PASS));
//!     f.if_(ethernet.load(field!(Ethernet, ethertype)).eq(Be::new(0x86dd)), || {
//!         counts.store(field!(Counts, dropped), counts.load(field!(Counts, dropped)) + 1);
//!         f.ret(XDP_DROP);
//!     });
//!     counts.store(field!(Counts, passed), counts.load(field!(Counts, passed)) + 1);
//!     f.ret(XDP_PASS);
//! })?;
//!
//! let elf = bpf_asm::object::Object::new("GPL").program(program).to_elf()?;
//! assert_eq!(&elf[..4], b"\x7fELF");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What must be kept in mind: the kernel's verifier follows every path. A loop over the packet learns an exact offset in each
//! iteration, and code behind the loop is followed once per iteration if it still uses what the loop compared; load such
//! values again (and ask for the [`Packet`] again) behind the loop.

mod atomic;
mod calls;
mod compile;
mod condition;
mod context;
mod copy;
mod error;
mod function;
mod ir;
mod layout;
mod loops;
mod maps;
mod matching;
mod memory;
mod packet;
mod scalar;
mod subprogram;
mod value;

pub use calls::{BPF_ADJ_ROOM_MAC, BPF_ADJ_ROOM_NET, BPF_F_RECOMPUTE_CSUM};
pub use condition::Cond;
pub use context::{
    TC_ACT_OK, TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_STOLEN, TC_ACT_UNSPEC, XDP_ABORTED, XDP_DROP,
    XDP_PASS, XDP_REDIRECT, XDP_TX,
};
pub use copy::Place;
pub use error::{BuildError, BuildErrorKind};
pub use function::{Function, Kind, Tc, Xdp, classifier, classifier_for, xdp, xdp_for, xdp_frags};
pub use loops::Loop;
pub use maps::{
    Array, ArrayOfMaps, BPF_ANY, BPF_EXIST, BPF_NOEXIST, BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP,
    BPF_RB_NO_WAKEUP, Bloom, Constant, CpuMap, DevMap, Global, Hash, HashOfMaps, InMemory,
    InnerMap, LpmKey, LpmTrie, Nestable, ProgArray, Queue, Record, RingBuf, Stack, XskMap,
};
pub use matching::Match;
pub use memory::Ptr;
pub use packet::{Packet, View};
pub use scalar::{Be, Cell, Field, Int, Le, Ordered, Scalar, Signed, Unsigned};
pub use subprogram::{Argument, Arguments, Context, Memory, Subprogram};
pub use value::{IntoVal, Val, Var};
