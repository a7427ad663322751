//! The kernel's helpers that the builder calls by name: numbers, hooks, and since when (include/uapi/linux/bpf.h and the
//! kernels' sources; where the running kernel is at hand, a test compares the hooks with what it says).

use crate::program::ProgramKind;

/// A family of hooks that have the same helpers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// XDP, with or without fragments.
    Xdp,
    /// TC classifiers.
    Tc,
}

impl Hook {
    /// Both.
    pub const ALL: [Hook; 2] = [Hook::Xdp, Hook::Tc];

    /// The hook of a kind of program.
    #[must_use]
    pub const fn of(kind: ProgramKind) -> Hook {
        match kind {
            ProgramKind::Xdp | ProgramKind::XdpFrags => Hook::Xdp,
            ProgramKind::Classifier => Hook::Tc,
        }
    }
}

/// A helper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Helper {
    /// In `enum bpf_func_id`.
    pub number: u32,
    /// Without `bpf_`.
    pub name: &'static str,
    /// The first kernel that has it, in one of these hooks.
    pub since: (u8, u8),
    /// Whether XDP programs may call it.
    pub xdp: bool,
    /// Whether TC programs may call it.
    pub tc: bool,
    /// Whether the program's licence has to be compatible with the GPL.
    pub gpl: bool,
}

impl Helper {
    /// Whether programs of this hook may call it.
    #[must_use]
    pub const fn is_for(&self, hook: Hook) -> bool {
        match hook {
            Hook::Xdp => self.xdp,
            Hook::Tc => self.tc,
        }
    }
}

/// The helper of this number, if it is in the table.
#[must_use]
pub fn by_number(number: u32) -> Option<&'static Helper> {
    let at = HELPERS
        .binary_search_by_key(&number, |helper| helper.number)
        .ok()?;
    HELPERS.get(at)
}

macro_rules! helpers {
    ($($constant:ident $number:literal $name:literal $major:literal.$minor:literal $xdp:ident $tc:ident $gpl:ident;)*) => {
        $(#[doc = concat!("The number of `bpf_", $name, "`.")]
        pub const $constant: u32 = $number;)*

        /// Every helper that this crate knows, by number.
        pub const HELPERS: &[Helper] = &[$(Helper {
            number: $number,
            name: $name,
            since: ($major, $minor),
            xdp: yes::$xdp,
            tc: yes::$tc,
            gpl: yes::$gpl,
        }),*];
    };
}

/// The table's words.
mod yes {
    pub(super) const XDP: bool = true;
    pub(super) const TC: bool = true;
    pub(super) const GPL: bool = true;
    pub(super) const NO: bool = false;
    pub(super) const ANY: bool = false;
}

helpers! {
    MAP_LOOKUP_ELEM 1 "map_lookup_elem" 3 . 19 XDP TC ANY;
    MAP_UPDATE_ELEM 2 "map_update_elem" 3 . 19 XDP TC ANY;
    MAP_DELETE_ELEM 3 "map_delete_elem" 3 . 19 XDP TC ANY;
    KTIME_GET_NS 5 "ktime_get_ns" 4 . 1 XDP TC ANY;
    TRACE_PRINTK 6 "trace_printk" 4 . 1 XDP TC GPL;
    GET_PRANDOM_U32 7 "get_prandom_u32" 4 . 1 XDP TC ANY;
    GET_SMP_PROCESSOR_ID 8 "get_smp_processor_id" 4 . 1 XDP TC ANY;
    SKB_STORE_BYTES 9 "skb_store_bytes" 4 . 1 NO TC ANY;
    L3_CSUM_REPLACE 10 "l3_csum_replace" 4 . 1 NO TC ANY;
    L4_CSUM_REPLACE 11 "l4_csum_replace" 4 . 1 NO TC ANY;
    TAIL_CALL 12 "tail_call" 4 . 2 XDP TC ANY;
    CLONE_REDIRECT 13 "clone_redirect" 4 . 2 NO TC ANY;
    SKB_VLAN_PUSH 18 "skb_vlan_push" 4 . 3 NO TC ANY;
    SKB_VLAN_POP 19 "skb_vlan_pop" 4 . 3 NO TC ANY;
    REDIRECT 23 "redirect" 4 . 4 XDP TC ANY;
    SKB_LOAD_BYTES 26 "skb_load_bytes" 4 . 5 NO TC ANY;
    CSUM_DIFF 28 "csum_diff" 4 . 6 XDP TC ANY;
    SKB_CHANGE_PROTO 31 "skb_change_proto" 4 . 8 NO TC ANY;
    SKB_CHANGE_TYPE 32 "skb_change_type" 4 . 8 NO TC ANY;
    GET_HASH_RECALC 34 "get_hash_recalc" 4 . 8 NO TC ANY;
    SKB_CHANGE_TAIL 38 "skb_change_tail" 4 . 9 NO TC ANY;
    SKB_PULL_DATA 39 "skb_pull_data" 4 . 9 NO TC ANY;
    CSUM_UPDATE 40 "csum_update" 4 . 9 NO TC ANY;
    SET_HASH_INVALID 41 "set_hash_invalid" 4 . 9 NO TC ANY;
    SKB_CHANGE_HEAD 43 "skb_change_head" 4 . 10 NO TC ANY;
    XDP_ADJUST_HEAD 44 "xdp_adjust_head" 4 . 10 XDP NO ANY;
    SKB_ADJUST_ROOM 50 "skb_adjust_room" 4 . 13 NO TC ANY;
    REDIRECT_MAP 51 "redirect_map" 4 . 14 XDP NO ANY;
    XDP_ADJUST_META 54 "xdp_adjust_meta" 4 . 15 XDP NO ANY;
    XDP_ADJUST_TAIL 65 "xdp_adjust_tail" 4 . 18 XDP NO ANY;
    FIB_LOOKUP 69 "fib_lookup" 4 . 18 XDP TC GPL;
    MAP_PUSH_ELEM 87 "map_push_elem" 4 . 20 XDP TC ANY;
    MAP_POP_ELEM 88 "map_pop_elem" 4 . 20 XDP TC ANY;
    MAP_PEEK_ELEM 89 "map_peek_elem" 4 . 20 XDP TC ANY;
    JIFFIES64 118 "jiffies64" 5 . 5 XDP TC ANY;
    KTIME_GET_BOOT_NS 125 "ktime_get_boot_ns" 5 . 7 XDP TC ANY;
    RINGBUF_OUTPUT 130 "ringbuf_output" 5 . 8 XDP TC ANY;
    RINGBUF_RESERVE 131 "ringbuf_reserve" 5 . 8 XDP TC ANY;
    RINGBUF_SUBMIT 132 "ringbuf_submit" 5 . 8 XDP TC ANY;
    RINGBUF_DISCARD 133 "ringbuf_discard" 5 . 8 XDP TC ANY;
    RINGBUF_QUERY 134 "ringbuf_query" 5 . 8 XDP TC ANY;
    REDIRECT_NEIGH 152 "redirect_neigh" 5 . 10 NO TC ANY;
    REDIRECT_PEER 155 "redirect_peer" 5 . 10 NO TC ANY;
    CHECK_MTU 163 "check_mtu" 5 . 12 XDP TC ANY;
    FOR_EACH_MAP_ELEM 164 "for_each_map_elem" 5 . 13 XDP TC ANY;
    LOOP 181 "loop" 5 . 17 XDP TC ANY;
    XDP_GET_BUFF_LEN 188 "xdp_get_buff_len" 5 . 18 XDP NO ANY;
    XDP_LOAD_BYTES 189 "xdp_load_bytes" 5 . 18 XDP NO ANY;
    XDP_STORE_BYTES 190 "xdp_store_bytes" 5 . 18 XDP NO ANY;
    KTIME_GET_TAI_NS 208 "ktime_get_tai_ns" 6 . 1 XDP TC ANY;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn helpers_are_found_by_their_numbers() {
        assert!(HELPERS.is_sorted_by(|a, b| a.number < b.number));
        for helper in HELPERS {
            assert_eq!(by_number(helper.number), Some(helper));
        }
        assert_eq!(by_number(0), None);
        assert_eq!(by_number(u32::MAX), None);
    }
}
