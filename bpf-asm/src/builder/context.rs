//! The programs' contexts, `struct xdp_md` and `struct __sk_buff` of linux/bpf.h, and the actions that programs return.

use super::function::{Function, Kind, Tc, Xdp};
use super::ir::{Base, Op, Operand};
use super::scalar::Be;
use super::value::{IntoVal, Val};
use crate::insn::Size;

/// `XDP_ABORTED`: drop, and tell the tracepoint `xdp_exception`.
pub const XDP_ABORTED: u32 = 0;
/// `XDP_DROP`.
pub const XDP_DROP: u32 = 1;
/// `XDP_PASS`: on to the stack.
pub const XDP_PASS: u32 = 2;
/// `XDP_TX`: back out of the interface that it came in by.
pub const XDP_TX: u32 = 3;
/// `XDP_REDIRECT`.
pub const XDP_REDIRECT: u32 = 4;
/// `TC_ACT_OK`: on its way.
pub const TC_ACT_OK: u32 = 0;
/// `TC_ACT_SHOT`: drop.
pub const TC_ACT_SHOT: u32 = 2;
/// `TC_ACT_UNSPEC`: the next program decides.
pub const TC_ACT_UNSPEC: u32 = u32::MAX;

impl<'f, K: Kind> Function<'f, K> {
    #[track_caller]
    fn context_word(self, offset: i32) -> Val<'f, u32> {
        let Operand::Reg(context) = self.context() else {
            unreachable!("arguments are registers")
        };
        Val::new(
            self.body,
            Operand::Reg(self.body.load(Size::W, Base::Reg(context), offset)),
        )
    }
}

macro_rules! words {
    ($kind:ident: $($(#[$doc:meta])* $name:ident $offset:literal;)*) => {
        impl<'f> Function<'f, $kind> {
            $($(#[$doc])*
            #[track_caller]
            pub fn $name(self) -> Val<'f, u32> {
                self.context_word($offset)
            })*
        }
    };
}

words! { Xdp:
    /// `ingress_ifindex`.
    ingress_ifindex 12;
    /// `rx_queue_index`.
    rx_queue_index 16;
}

words! { Tc:
    /// `len`: bytes of the packet.
    len 0;
    /// `mark`.
    mark 8;
    /// `vlan_present`.
    vlan_present 20;
    /// `vlan_tci`, valid with `vlan_present`.
    vlan_tci 24;
    /// `ingress_ifindex`, 0 for what this host sends.
    ingress_ifindex 36;
    /// `ifindex` of the device.
    ifindex 40;
    /// `hash`.
    hash 68;
    /// `gso_segs`: segments that the device will make of it.
    gso_segs 164;
    /// `gso_size`: bytes of each, 0 for an ordinary packet.
    gso_size 176;
}

impl<'f> Function<'f, Tc> {
    /// `protocol`: the EtherType, behind VLAN tags that are in metadata.
    #[track_caller]
    pub fn protocol(self) -> Val<'f, Be<u16>> {
        let word = self.context_word(16);
        Val::new(self.body, (word & 0xffffu32).operand)
    }

    /// Sets `mark`.
    #[track_caller]
    pub fn set_mark(self, mark: impl IntoVal<'f, u32>) {
        let Operand::Reg(context) = self.context() else {
            unreachable!("arguments are registers")
        };
        let mark = match mark.operand(self.body) {
            // Before Linux 6.4 the verifier takes only registers to store into the context, no constants.
            Operand::Const(value) => {
                let dst = self.body.fresh(false, value);
                let src = Operand::Const(value);
                self.body.emit(Op::Copy { dst, src });
                Operand::Reg(dst)
            }
            register => register,
        };
        self.body.store(Size::W, Base::Reg(context), 8, mark);
    }
}
