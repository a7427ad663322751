//! Jump tables of programs.

use super::definition;
use crate::builder::function::{Function, Kind};
use crate::builder::ir::Arg;
use crate::builder::value::IntoVal;
use crate::helper;
use crate::program::MapType;

/// Programs to jump to: `BPF_MAP_TYPE_PROG_ARRAY`.
#[derive(Clone, Copy, Debug)]
pub struct ProgArray {
    name: &'static str,
    entries: u32,
}

impl ProgArray {
    /// A jump table.
    #[must_use]
    pub const fn new(name: &'static str, entries: u32) -> ProgArray {
        ProgArray { name, entries }
    }

    /// Goes on in the program at `index`, and doesn't come back; goes on behind the call when there is none.
    #[track_caller]
    pub fn tail_call<'f, K: Kind>(&self, f: Function<'f, K>, index: impl IntoVal<'f, u32>) {
        let index = index.operand(f.body);
        let map = f.body.map(definition(
            self.name,
            MapType::ProgArray,
            [4, 4],
            self.entries,
            0,
        ));
        f.body.helper(
            helper::TAIL_CALL,
            vec![Arg::Value(f.context()), Arg::Map(map), Arg::Value(index)],
        );
    }
}
