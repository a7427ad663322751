//! The programs' contexts, `struct xdp_md` and `struct __sk_buff` of linux/bpf.h, and the actions that programs return.

use super::error::BuildErrorKind;
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
/// `TC_ACT_STOLEN`: the program has dealt with it.
pub const TC_ACT_STOLEN: u32 = 4;
/// `TC_ACT_REDIRECT`: what [`Function::redirect`] returns.
pub const TC_ACT_REDIRECT: u32 = 7;
/// `TC_ACT_UNSPEC`: the next program decides.
pub const TC_ACT_UNSPEC: u32 = u32::MAX;

impl<'f, K: Kind> Function<'f, K> {
    #[track_caller]
    fn context_word(self, offset: i32) -> Val<'f, u32> {
        let context = self.body.context();
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
    /// `pkt_type`: to whom it is addressed (`PACKET_HOST` 0, `_BROADCAST` 1, `_MULTICAST` 2, `_OTHERHOST` 3, `_OUTGOING` 4).
    packet_type 4;
    /// `mark`.
    mark 8;
    /// `queue_mapping`.
    queue_mapping 12;
    /// `vlan_present`.
    vlan_present 20;
    /// `vlan_tci`, valid with `vlan_present`.
    vlan_tci 24;
    /// `priority`.
    priority 32;
    /// `ingress_ifindex`, 0 for what this host sends.
    ingress_ifindex 36;
    /// `ifindex` of the device.
    ifindex 40;
    /// `tc_index`.
    tc_index 44;
    /// `hash`.
    hash 68;
    /// `tc_classid`.
    tc_classid 72;
    /// `napi_id`.
    napi_id 84;
    /// `gso_segs`: segments that the device will make of it.
    gso_segs 164;
    /// `gso_size`: bytes of each, 0 for an ordinary packet.
    gso_size 176;
}

macro_rules! settable_words {
    ($($(#[$doc:meta])* $name:ident $offset:literal;)*) => {
        impl<'f> Function<'f, Tc> {
            $($(#[$doc])*
            #[track_caller]
            pub fn $name(self, value: impl IntoVal<'f, u32>) {
                let value = value.operand(self.body);
                self.set_context_word($offset, value);
            })*
        }
    };
}

settable_words! {
    /// Sets `mark`.
    set_mark 8;
    /// Sets `queue_mapping`.
    set_queue_mapping 12;
    /// Sets `priority`.
    set_priority 32;
    /// Sets `tc_index`.
    set_tc_index 44;
    /// Sets `tc_classid`.
    set_tc_classid 72;
}

/// Where `cb` begins in `struct __sk_buff`, and how many words it has.
const CB: (i32, usize) = (48, 5);
/// Where `tstamp` is.
const TSTAMP: i32 = 152;

impl<'f> Function<'f, Tc> {
    #[track_caller]
    fn set_context_word(self, offset: i32, value: Operand) {
        let context = self.body.context();
        let value = self.in_register(value);
        self.body.store(Size::W, Base::Reg(context), offset, value);
    }

    /// `protocol`: the EtherType, behind VLAN tags that are in metadata.
    #[track_caller]
    pub fn protocol(self) -> Val<'f, Be<u16>> {
        let word = self.context_word(16);
        Val::new(self.body, (word & 0xffffu32).operand)
    }

    /// `cb[number]`: scratch words that travel with the packet from program to program.
    #[track_caller]
    pub fn cb(self, number: usize) -> Val<'f, u32> {
        match self.cb_offset(number) {
            Some(offset) => self.context_word(offset),
            None => self.value(0),
        }
    }

    /// Sets `cb[number]`.
    #[track_caller]
    pub fn set_cb(self, number: usize, value: impl IntoVal<'f, u32>) {
        let value = value.operand(self.body);
        if let Some(offset) = self.cb_offset(number) {
            self.set_context_word(offset, value);
        }
    }

    #[track_caller]
    fn cb_offset(self, number: usize) -> Option<i32> {
        let (first, words) = CB;
        if number >= words {
            self.body.fail(BuildErrorKind::OutOfRange {
                index: number as u64,
                len: words as u64,
            });
            return None;
        }
        Some(first + 4 * number as i32)
    }

    /// `tstamp`: when the packet is to leave, or when it came, in nanoseconds.
    #[track_caller]
    pub fn timestamp(self) -> Val<'f, u64> {
        let context = self.body.context();
        let word = self.body.load(Size::DW, Base::Reg(context), TSTAMP);
        Val::new(self.body, Operand::Reg(word))
    }

    /// Sets `tstamp`.
    #[track_caller]
    pub fn set_timestamp(self, nanoseconds: impl IntoVal<'f, u64>) {
        let context = self.body.context();
        let value = nanoseconds.operand(self.body);
        let value = self.in_register(value);
        self.body.store(Size::DW, Base::Reg(context), TSTAMP, value);
    }

    /// Before Linux 6.4 the verifier takes only registers to store into the context, no constants.
    #[track_caller]
    fn in_register(self, value: Operand) -> Operand {
        match value {
            Operand::Const(value) => {
                let dst = self.body.fresh(false, value);
                let src = Operand::Const(value);
                self.body.emit(Op::Copy { dst, src });
                Operand::Reg(dst)
            }
            register => register,
        }
    }
}
