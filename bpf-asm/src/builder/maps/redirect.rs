//! Maps of where packets go: devices, CPUs, sockets of user space.

use super::definition;
use crate::builder::function::{Function, Xdp};
use crate::builder::ir::{Arg, Operand};
use crate::builder::value::{IntoVal, Val};
use crate::helper;
use crate::program::MapType;

macro_rules! destinations {
    ($($(#[$doc:meta])* $name:ident $map_type:ident $value:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name {
            name: &'static str,
            entries: u32,
            map_type: MapType,
        }

        impl $name {
            /// With this many places.
            #[must_use]
            pub const fn new(name: &'static str, entries: u32) -> $name {
                $name { name, entries, map_type: MapType::$map_type }
            }

            /// The action that sends the packet to the destination at `key`: return it. The lower two bits of `flags` are
            /// the action when there is none (`XDP_ABORTED` to `XDP_TX`).
            #[track_caller]
            pub fn redirect<'f>(
                &self,
                f: Function<'f, Xdp>,
                key: impl IntoVal<'f, u32>,
                flags: impl IntoVal<'f, u64>,
            ) -> Val<'f, u32> {
                let (key, flags) = (key.operand(f.body), flags.operand(f.body));
                let map = f.body.map(definition(self.name, self.map_type, [4, $value], self.entries, 0));
                let arguments = vec![Arg::Map(map), Arg::Value(key), Arg::Value(flags)];
                let action = f.body.helper(helper::REDIRECT_MAP, arguments);
                Val::<u64>::new(f.body, Operand::Reg(action)).cast()
            }
        }
    )*};
}

destinations! {
    /// Network devices by index: `BPF_MAP_TYPE_DEVMAP`.
    DevMap DevMap 4;
    /// CPUs by number: `BPF_MAP_TYPE_CPUMAP`.
    CpuMap CpuMap 4;
    /// AF_XDP sockets by queue: `BPF_MAP_TYPE_XSKMAP`.
    XskMap XskMap 4;
}

impl DevMap {
    /// Network devices by any number: `BPF_MAP_TYPE_DEVMAP_HASH`.
    #[must_use]
    pub const fn hash(name: &'static str, entries: u32) -> DevMap {
        DevMap {
            name,
            entries,
            map_type: MapType::DevMapHash,
        }
    }
}
