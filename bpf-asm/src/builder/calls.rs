//! The kernel's helpers as methods. Which kernel has which since when, and for which hooks, is [`crate::helper::HELPERS`].

use super::error::BuildErrorKind;
use super::function::{Function, Kind, Tc, Xdp};
use super::ir::{Arg, Operand};
use super::memory::Ptr;
use super::packet::Packet;
use super::scalar::{Be, Int};
use super::value::{IntoVal, Val};
use crate::helper;
use crate::program::RODATA;

/// `bpf_trace_printk` takes no more values.
const MOST_PRINTED: usize = 3;

impl<'f, K: Kind> Function<'f, K> {
    /// Nanoseconds since boot, without suspend (CLOCK_MONOTONIC): `bpf_ktime_get_ns`.
    #[track_caller]
    pub fn ktime_ns(self) -> Val<'f, u64> {
        Val::new(
            self.body,
            Operand::Reg(self.body.helper(helper::KTIME_GET_NS, Vec::new())),
        )
    }

    /// A pseudo-random number: `bpf_get_prandom_u32`.
    #[track_caller]
    pub fn random_u32(self) -> Val<'f, u32> {
        Val::<u64>::new(
            self.body,
            Operand::Reg(self.body.helper(helper::GET_PRANDOM_U32, Vec::new())),
        )
        .cast()
    }

    /// A helper by its number (`enum bpf_func_id`): for what has no method here. The first error-prone door out of the types.
    #[track_caller]
    pub fn call_helper(self, number: u32, arguments: &[Val<'f, u64>]) -> Val<'f, u64> {
        let arguments = arguments
            .iter()
            .map(|argument| Arg::Value(argument.operand))
            .collect();
        Val::new(self.body, Operand::Reg(self.body.helper(number, arguments)))
    }

    /// A clock that goes on during suspend (CLOCK_BOOTTIME), in nanoseconds: `bpf_ktime_get_boot_ns`.
    #[track_caller]
    pub fn ktime_boot_ns(self) -> Val<'f, u64> {
        self.result(helper::KTIME_GET_BOOT_NS, Vec::new())
    }

    /// International Atomic Time (CLOCK_TAI), in nanoseconds: `bpf_ktime_get_tai_ns`.
    #[track_caller]
    pub fn ktime_tai_ns(self) -> Val<'f, u64> {
        self.result(helper::KTIME_GET_TAI_NS, Vec::new())
    }

    /// Timer ticks since boot: `bpf_jiffies64`.
    #[track_caller]
    pub fn jiffies(self) -> Val<'f, u64> {
        self.result(helper::JIFFIES64, Vec::new())
    }

    /// The number of this CPU: `bpf_get_smp_processor_id`.
    #[track_caller]
    pub fn cpu(self) -> Val<'f, u32> {
        self.result::<u64>(helper::GET_SMP_PROCESSOR_ID, Vec::new())
            .cast()
    }

    /// The difference that a change of bytes makes to an Internet checksum: `bpf_csum_diff`. Lengths are multiples of 4; `None`
    /// stands for no bytes.
    #[track_caller]
    pub fn csum_diff<A, B>(
        self,
        from: Option<Ptr<'f, A>>,
        to: Option<Ptr<'f, B>>,
        seed: impl IntoVal<'f, u32>,
    ) -> Val<'f, i64> {
        if !(size_of::<A>().is_multiple_of(4) && size_of::<B>().is_multiple_of(4)) {
            self.body.fail(BuildErrorKind::Misuse(
                "csum_diff takes lengths that are multiples of 4: choose other types",
            ));
        }
        let seed = seed.operand(self.body);
        let none = || [Operand::Const(0), Operand::Const(0)].map(Arg::Value);
        let [from, from_len] = from.map_or_else(none, |ptr| sized(ptr, size_of::<A>()));
        let [to, to_len] = to.map_or_else(none, |ptr| sized(ptr, size_of::<B>()));
        let arguments = vec![from, from_len, to, to_len, Arg::Value(seed)];
        self.result(helper::CSUM_DIFF, arguments)
    }

    /// Asks the routing table: `bpf_fib_lookup`. `query` is a `struct bpf_fib_lookup` of linux/bpf.h, 64 bytes, filled in as
    /// documented there; 0 for a route, else `BPF_FIB_LKUP_RET_*` or a negative error.
    #[track_caller]
    pub fn fib_lookup<Q>(self, query: Ptr<'f, Q>, flags: impl IntoVal<'f, u32>) -> Val<'f, i64> {
        const { assert!(size_of::<Q>() == 64, "struct bpf_fib_lookup has 64 bytes") };
        let flags = flags.operand(self.body);
        let [query, len] = sized(query, size_of::<Q>());
        let context = Arg::Value(self.context());
        let arguments = vec![context, query, len, Arg::Value(flags)];
        self.result(helper::FIB_LOOKUP, arguments)
    }

    /// Sends the packet out of an interface when the program ends with the returned action: `bpf_redirect`.
    #[track_caller]
    pub fn redirect(self, interface: impl IntoVal<'f, u32>, flags: u64) -> Val<'f, u32> {
        let interface = interface.operand(self.body);
        let arguments = [interface, Operand::Const(flags)].map(Arg::Value);
        self.result::<u64>(helper::REDIRECT, arguments.to_vec())
            .cast()
    }

    /// Writes a line to `/sys/kernel/tracing/trace_pipe`, for debugging: `bpf_trace_printk`. At most three values; each `%d`,
    /// `%u`, `%x` prints 32 bits of one, with `l` or `ll` 64.
    #[track_caller]
    pub fn printk(self, format: &str, values: &[Val<'f, u64>]) {
        let asked = conversions(format);
        if asked != Some(values.len()) || values.len() > MOST_PRINTED {
            self.body.fail(BuildErrorKind::Format {
                asked: asked.unwrap_or(format.matches('%').count()),
                given: values.len(),
            });
            return;
        }
        let text = [format.as_bytes(), b"\0"].concat();
        let name = format!("format_{:016x}", digest(&text));
        let (map, offset) = self.body.global(RODATA, &name, &text, 1);
        let at = self.body.fresh(true, u64::MAX);
        self.body.emit(super::ir::Op::Global {
            dst: at,
            map,
            offset,
        });
        let mut arguments = vec![Operand::Reg(at), Operand::Const(text.len() as u64)];
        arguments.extend(values.iter().map(|value| value.operand(self.body)));
        let arguments = arguments.into_iter().map(Arg::Value).collect();
        self.body.helper(helper::TRACE_PRINTK, arguments);
    }

    #[track_caller]
    fn result<T: Int>(self, number: u32, arguments: Vec<Arg>) -> Val<'f, T> {
        Val::new(self.body, Operand::Reg(self.body.helper(number, arguments)))
    }

    /// A helper whose first argument is the context.
    #[track_caller]
    fn on_context<const N: usize>(self, number: u32, arguments: [Operand; N]) -> Val<'f, i64> {
        let context = std::iter::once(self.context());
        self.result(number, context.chain(arguments).map(Arg::Value).collect())
    }
}

/// An address and how many bytes are there.
fn sized<S>(ptr: Ptr<'_, S>, bytes: usize) -> [Arg; 2] {
    let len = Operand::Const(bytes as u64);
    [Arg::Address(ptr.base, ptr.offset), Arg::Value(len)]
}

/// How many values a format asks for; `None` if the kernel wouldn't take it or it prints what isn't a number.
fn conversions(format: &str) -> Option<usize> {
    let mut parts = format.split('%');
    parts.next();
    let mut count = 0;
    let mut escaped = false;
    for part in parts {
        if std::mem::take(&mut escaped) {
            continue;
        }
        if part.is_empty() {
            // `%%`: what follows it is text.
            escaped = true;
            continue;
        }
        let part = part
            .strip_prefix("ll")
            .or(part.strip_prefix('l'))
            .unwrap_or(part);
        if !part.starts_with(['d', 'i', 'u', 'x']) {
            return None;
        }
        count += 1;
    }
    (!escaped).then_some(count)
}

/// FNV-1a, so that the same text has the same name in every program.
fn digest(text: &[u8]) -> u64 {
    text.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl<'f> Function<'f, Xdp> {
    /// Bytes of the packet, fragments included: `bpf_xdp_get_buff_len`.
    #[track_caller]
    pub fn buffer_len(self) -> Val<'f, u64> {
        let arguments = vec![Arg::Value(self.context())];
        self.result(helper::XDP_GET_BUFF_LEN, arguments)
    }

    /// Copies an `S` from the packet, fragments included: `bpf_xdp_load_bytes`. 0 or a negative error.
    #[track_caller]
    pub fn load_bytes<S>(self, offset: impl IntoVal<'f, u32>, into: Ptr<'f, S>) -> Val<'f, i64> {
        self.bytes(helper::XDP_LOAD_BYTES, offset, into)
    }

    /// Copies an `S` into the packet, fragments included: `bpf_xdp_store_bytes`. 0 or a negative error.
    #[track_caller]
    pub fn store_bytes<S>(self, offset: impl IntoVal<'f, u32>, from: Ptr<'f, S>) -> Val<'f, i64> {
        self.bytes(helper::XDP_STORE_BYTES, offset, from)
    }

    /// Makes room (negative) for metadata in front of the packet, which the rest of the stack can read:
    /// `bpf_xdp_adjust_meta`. 0 or a negative error.
    #[track_caller]
    pub fn adjust_meta(self, packet: Packet<'f>, by: impl IntoVal<'f, i64>) -> Val<'f, i64> {
        let _ = packet;
        let by = by.operand(self.body);
        self.on_context(helper::XDP_ADJUST_META, [by])
    }
}

impl<'f, K: Kind> Function<'f, K> {
    #[track_caller]
    fn bytes<S>(self, number: u32, offset: impl IntoVal<'f, u32>, at: Ptr<'f, S>) -> Val<'f, i64> {
        let offset = offset.operand(self.body);
        let [at, len] = sized(at, size_of::<S>());
        let arguments = vec![Arg::Value(self.context()), Arg::Value(offset), at, len];
        self.result(number, arguments)
    }
}

/// `skb_store_bytes`: correct the checksum of a packet that is summed already.
pub const BPF_F_RECOMPUTE_CSUM: u64 = 1;
/// [`Function::adjust_room`]: room between MAC and network header.
pub const BPF_ADJ_ROOM_MAC: u32 = 1;
/// [`Function::adjust_room`]: room between network and transport header.
pub const BPF_ADJ_ROOM_NET: u32 = 0;

impl<'f> Function<'f, Tc> {
    /// Copies an `S` from the packet, wherever it lies: `bpf_skb_load_bytes`. 0 or a negative error.
    #[track_caller]
    pub fn load_bytes<S>(self, offset: impl IntoVal<'f, u32>, into: Ptr<'f, S>) -> Val<'f, i64> {
        self.bytes(helper::SKB_LOAD_BYTES, offset, into)
    }

    /// Copies an `S` into the packet: `bpf_skb_store_bytes`. 0 or a negative error.
    #[track_caller]
    pub fn store_bytes<S>(
        self,
        packet: Packet<'f>,
        offset: impl IntoVal<'f, u32>,
        from: Ptr<'f, S>,
        flags: u64,
    ) -> Val<'f, i64> {
        let _ = packet;
        let offset = offset.operand(self.body);
        let [from, len] = sized(from, size_of::<S>());
        let context = Arg::Value(self.context());
        let flags = Arg::Value(Operand::Const(flags));
        let arguments = vec![context, Arg::Value(offset), from, len, flags];
        self.result(helper::SKB_STORE_BYTES, arguments)
    }

    /// Makes the packet this long: `bpf_skb_change_tail`. 0 or a negative error.
    #[track_caller]
    pub fn change_tail(self, packet: Packet<'f>, len: impl IntoVal<'f, u32>) -> Val<'f, i64> {
        let _ = packet;
        let len = len.operand(self.body);
        self.on_context(helper::SKB_CHANGE_TAIL, [len, Operand::Const(0)])
    }

    /// Makes room for so many bytes in front of the packet: `bpf_skb_change_head`. 0 or a negative error.
    #[track_caller]
    pub fn change_head(self, packet: Packet<'f>, by: impl IntoVal<'f, u32>) -> Val<'f, i64> {
        let _ = packet;
        let by = by.operand(self.body);
        self.on_context(helper::SKB_CHANGE_HEAD, [by, Operand::Const(0)])
    }

    /// Grows or shrinks the room behind a header (`BPF_ADJ_ROOM_*`): `bpf_skb_adjust_room`. 0 or a negative error.
    #[track_caller]
    pub fn adjust_room(
        self,
        packet: Packet<'f>,
        by: impl IntoVal<'f, i32>,
        mode: u32,
        flags: u64,
    ) -> Val<'f, i64> {
        let _ = packet;
        let by = Val::<i32>::new(self.body, by.operand(self.body)).cast::<i64>();
        let arguments = [
            by.operand,
            Operand::Const(mode.into()),
            Operand::Const(flags),
        ];
        self.on_context(helper::SKB_ADJUST_ROOM, arguments)
    }

    /// Puts a VLAN tag on the packet: `bpf_skb_vlan_push`. 0 or a negative error.
    #[track_caller]
    pub fn vlan_push(
        self,
        packet: Packet<'f>,
        protocol: Be<u16>,
        tci: impl IntoVal<'f, u16>,
    ) -> Val<'f, i64> {
        use super::scalar::Scalar;
        let _ = packet;
        let tci = tci.operand(self.body);
        self.on_context(
            helper::SKB_VLAN_PUSH,
            [Operand::Const(protocol.register()), tci],
        )
    }

    /// Takes the outer VLAN tag off: `bpf_skb_vlan_pop`. 0 or a negative error.
    #[track_caller]
    pub fn vlan_pop(self, packet: Packet<'f>) -> Val<'f, i64> {
        let _ = packet;
        self.on_context(helper::SKB_VLAN_POP, [])
    }

    /// Gives the packet to the other side of a veth pair when the program ends with the returned action:
    /// `bpf_redirect_peer`; ingress only.
    #[track_caller]
    pub fn redirect_peer(self, interface: impl IntoVal<'f, u32>, flags: u64) -> Val<'f, u32> {
        let interface = interface.operand(self.body);
        let arguments = [interface, Operand::Const(flags)].map(Arg::Value);
        self.result::<u64>(helper::REDIRECT_PEER, arguments.to_vec())
            .cast()
    }

    /// Sends the packet out of an interface to the neighbour that the routing table names, when the program ends with the
    /// returned action: `bpf_redirect_neigh`.
    #[track_caller]
    pub fn redirect_neigh(self, interface: impl IntoVal<'f, u32>, flags: u64) -> Val<'f, u32> {
        let interface = interface.operand(self.body);
        let nothing = Operand::Const(0);
        let arguments = [interface, nothing, nothing, Operand::Const(flags)].map(Arg::Value);
        self.result::<u64>(helper::REDIRECT_NEIGH, arguments.to_vec())
            .cast()
    }

    /// Corrects a network header's checksum at `offset` for a change of `from` to `to`, of `size` (2 or 4) bytes in network
    /// byte order: `bpf_l3_csum_replace`. 0 or a negative error.
    #[track_caller]
    pub fn l3_csum_replace(
        self,
        packet: Packet<'f>,
        offset: impl IntoVal<'f, u32>,
        from: Val<'f, u64>,
        to: Val<'f, u64>,
        size: u64,
    ) -> Val<'f, i64> {
        let _ = packet;
        let offset = offset.operand(self.body);
        let arguments = [
            offset,
            from.operand(self.body),
            to.operand(self.body),
            Operand::Const(size),
        ];
        self.on_context(helper::L3_CSUM_REPLACE, arguments)
    }

    /// Adds to the packet's checksum as the device computed it: `bpf_csum_update`.
    #[track_caller]
    pub fn csum_update(self, sum: impl IntoVal<'f, u32>) -> Val<'f, i64> {
        let sum = sum.operand(self.body);
        self.on_context(helper::CSUM_UPDATE, [sum])
    }

    /// The hash of the packet's flow, computed if need be: `bpf_get_hash_recalc`.
    #[track_caller]
    pub fn hash_recalc(self) -> Val<'f, u32> {
        let arguments = vec![Arg::Value(self.context())];
        self.result::<u64>(helper::GET_HASH_RECALC, arguments)
            .cast()
    }

    /// Forgets the hash of the flow, after changing what it is computed from: `bpf_set_hash_invalid`.
    #[track_caller]
    pub fn set_hash_invalid(self) {
        let arguments = vec![Arg::Value(self.context())];
        self.body.helper(helper::SET_HASH_INVALID, arguments);
    }

    /// Changes to whom the packet seems addressed (`PACKET_HOST` 0 to `PACKET_OTHERHOST` 3): `bpf_skb_change_type`. 0 or a
    /// negative error.
    #[track_caller]
    pub fn change_type(self, packet_type: u32) -> Val<'f, i64> {
        self.on_context(
            helper::SKB_CHANGE_TYPE,
            [Operand::Const(packet_type.into())],
        )
    }

    /// Turns IPv4 into IPv6 or back, making the room that the other header needs: `bpf_skb_change_proto`. 0 or a negative
    /// error.
    #[track_caller]
    pub fn change_proto(self, packet: Packet<'f>, protocol: Be<u16>) -> Val<'f, i64> {
        use super::scalar::Scalar;
        let _ = packet;
        let arguments = [Operand::Const(protocol.register()), Operand::Const(0)];
        self.on_context(helper::SKB_CHANGE_PROTO, arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::conversions;

    #[test]
    fn conversions_of_numbers_are_counted_and_no_others_taken() {
        assert_eq!(conversions("nothing"), Some(0));
        assert_eq!(conversions("%d of %llx, %u"), Some(3));
        assert_eq!(conversions("100%% of %d"), Some(1));
        assert_eq!(conversions("%s"), None);
        assert_eq!(conversions("%"), None);
    }
}
