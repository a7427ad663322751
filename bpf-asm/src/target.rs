//! Targets: what the machine that runs a program can do, instruction by instruction and helper by helper.
//!
//! A kernel's version only suggests what it can do; distributions carry patches back. [`Target::probe`] asks it. What a target
//! lacks [`Target::lower`] replaces by what it has, where that is possible, and where it is not it names the Rust line.

mod lower;
mod probe;

pub use lower::{LowerError, LowerErrorKind};
pub use probe::{Answer, probe_programs};

use std::fmt;

use crate::helper::Hook;
use crate::insn::{AluOp, AtomicOp, EndianKind, Insn, Size};

/// Something that not every target has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Feature {
    /// Atomic additions without the old value, of 32 and 64 bits: the oldest atomics.
    AtomicAdd,
    /// All other atomics of 32 and 64 bits: the old value, and, or, xor, exchange, compare-and-exchange (Linux 5.12).
    Atomics,
    /// Loads with acquire and stores with release ordering (Linux 6.15, by architecture).
    OrderedAccess,
    /// `r1 = (s8)r2` (Linux 6.6).
    SignExtendingMove,
    /// `r1 = *(s8 *)(r2 + 0)` (Linux 6.6).
    SignExtendingLoad,
    /// `r1 = bswap16 r1`, whatever the host's byte order (Linux 6.6).
    ByteSwap,
    /// `r1 s/= r2` and `r1 s%= r2` (Linux 6.6).
    SignedDivision,
    /// Jumps of more than 32767 instructions (Linux 6.6).
    LongJump,
    /// Jumps that the kernel takes when a loop's budget is used up (Linux 6.9).
    MayGoto,
    /// The address of a subprogram as a helper's argument (Linux 5.13).
    Callback,
    /// Calls of subprograms (Linux 4.16).
    LocalCall,
    /// Tail calls out of subprograms and everything else that rbpf's one-function world lacks.
    TailCall,
    /// 64-bit comparisons sign-extend their immediate, as RFC 9669 says. rbpf 0.4 doesn't.
    SignExtendedCompare,
    /// A 32-bit remainder by a register that is zero clears the upper half. rbpf 0.4 doesn't.
    RemainderClears,
    /// Negation of the smallest number wraps. rbpf 0.4 panics where overflow is checked.
    WrappingNegation,
}

/// Every feature, its name, in the order of the enumeration.
const NAMES: [(Feature, &str); 15] = [
    (Feature::AtomicAdd, "atomic addition"),
    (
        Feature::Atomics,
        "atomics other than an addition without its old value",
    ),
    (
        Feature::OrderedAccess,
        "load with acquire, store with release",
    ),
    (Feature::SignExtendingMove, "sign-extending move"),
    (Feature::SignExtendingLoad, "sign-extending load"),
    (Feature::ByteSwap, "unconditional byte swap"),
    (Feature::SignedDivision, "signed division"),
    (Feature::LongJump, "32-bit jump (gotol)"),
    (Feature::MayGoto, "may_goto"),
    (Feature::Callback, "callback"),
    (Feature::LocalCall, "call of a subprogram"),
    (Feature::TailCall, "tail call"),
    (
        Feature::SignExtendedCompare,
        "64-bit comparison with a negative immediate",
    ),
    (Feature::RemainderClears, "32-bit remainder by zero"),
    (Feature::WrappingNegation, "negation of the smallest number"),
];

impl Feature {
    /// Every feature.
    pub const ALL: [Feature; NAMES.len()] = {
        let mut all = [NAMES[0].0; NAMES.len()];
        let mut at = 1;
        while at < all.len() {
            all[at] = NAMES[at].0;
            at += 1;
        }
        all
    };

    const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// The feature that an instruction needs, if not every target has it.
    #[must_use]
    pub fn of(insn: &Insn) -> Option<Feature> {
        use crate::insn::{Imm64, JumpOp, Source, Width};
        Some(match *insn {
            Insn::MovSx { .. } => Feature::SignExtendingMove,
            Insn::Load { signed: true, .. } => Feature::SignExtendingLoad,
            Insn::Endian {
                kind: EndianKind::Swap,
                ..
            } => Feature::ByteSwap,
            Insn::Alu {
                op: AluOp::SDiv | AluOp::SMod,
                ..
            } => Feature::SignedDivision,
            Insn::Alu {
                width: Width::W32,
                op: AluOp::Mod,
                src: Source::Reg(_),
                ..
            } => Feature::RemainderClears,
            Insn::Neg { .. } => Feature::WrappingNegation,
            Insn::Jump {
                width: Width::W64,
                op: JumpOp::Eq | JumpOp::Ne | JumpOp::Gt | JumpOp::Ge | JumpOp::Lt | JumpOp::Le,
                src: Source::Imm(..0),
                ..
            } => Feature::SignExtendedCompare,
            Insn::GotoLong { .. } => Feature::LongJump,
            Insn::MayGoto { .. } => Feature::MayGoto,
            Insn::Atomic {
                op: AtomicOp::LoadAcquire | AtomicOp::StoreRelease,
                ..
            } => Feature::OrderedAccess,
            Insn::Atomic {
                op: AtomicOp::Add,
                size: Size::W | Size::DW,
                ..
            } => Feature::AtomicAdd,
            Insn::Atomic { .. } => Feature::Atomics,
            Insn::LoadImm64 {
                value: Imm64::Function { .. },
                ..
            } => Feature::Callback,
            Insn::CallLocal { .. } => Feature::LocalCall,
            Insn::Call {
                helper: crate::helper::TAIL_CALL,
            } => Feature::TailCall,
            _ => return None,
        })
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAMES[*self as usize].1)
    }
}

/// A set of features, and, where that is known, of helpers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    features: u32,
    /// By hook and number; `None` when nobody asked.
    helpers: Option<[[u64; HELPER_WORDS]; Hook::ALL.len()]>,
    /// Plain loads and stores stand in for atomics: one program runs at a time.
    alone: bool,
}

/// Helper numbers below 256, more than kernels will ever get: new functions are kfuncs.
const HELPER_WORDS: usize = 4;

impl Default for Target {
    fn default() -> Target {
        Target::common()
    }
}

impl Target {
    /// What every kernel has that supports all 64-bit atomics (5.12 and later); the builder's default. It has signed
    /// division only through [`Target::lower`], which the builder applies by itself.
    #[must_use]
    pub fn common() -> Target {
        let missing = [
            Feature::OrderedAccess,
            Feature::SignExtendingMove,
            Feature::SignExtendingLoad,
            Feature::ByteSwap,
            Feature::SignedDivision,
            Feature::LongJump,
            Feature::MayGoto,
        ];
        missing
            .into_iter()
            .fold(Target::everything(), Target::without)
    }

    /// Every feature; nothing is known of helpers.
    #[must_use]
    pub fn everything() -> Target {
        Target {
            features: Feature::ALL
                .iter()
                .fold(0, |bits, feature| bits | feature.bit()),
            helpers: None,
            alone: false,
        }
    }

    /// The virtual machine of the crate `rbpf` 0.4: no atomics, no instructions newer than 2021, and three of its
    /// divergences from RFC 9669 worked around. Atomics become plain loads and stores, so that only one program may run.
    #[must_use]
    pub fn rbpf() -> Target {
        let missing = [
            Feature::AtomicAdd,
            Feature::Atomics,
            Feature::Callback,
            Feature::TailCall,
            Feature::SignExtendedCompare,
            Feature::RemainderClears,
            Feature::WrappingNegation,
        ];
        Target {
            alone: true,
            ..missing.into_iter().fold(Target::common(), Target::without)
        }
    }

    /// Whether it has a feature.
    #[must_use]
    pub fn has(&self, feature: Feature) -> bool {
        self.features & feature.bit() != 0
    }

    /// The same with a feature.
    #[must_use]
    pub fn with(self, feature: Feature) -> Target {
        Target {
            features: self.features | feature.bit(),
            ..self
        }
    }

    /// The same without a feature.
    #[must_use]
    pub fn without(self, feature: Feature) -> Target {
        Target {
            features: self.features & !feature.bit(),
            ..self
        }
    }

    /// The features that it has.
    pub fn features(&self) -> impl Iterator<Item = Feature> + '_ {
        Feature::ALL
            .into_iter()
            .filter(|feature| self.has(*feature))
    }

    /// Whether programs of this hook may call a helper; `None` when nobody asked.
    #[must_use]
    pub fn has_helper(&self, hook: Hook, number: u32) -> Option<bool> {
        let helpers = self.helpers.as_ref()?[hook as usize];
        let word = helpers.get(number as usize / 64)?;
        Some(word >> (number % 64) & 1 == 1)
    }

    fn set_helper(&mut self, hook: Hook, number: u32) {
        let helpers = self.helpers.get_or_insert_default();
        if let Some(word) = helpers[hook as usize].get_mut(number as usize / 64) {
            *word |= 1 << (number % 64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_in_the_order_of_the_features() {
        for (place, (feature, _)) in NAMES.iter().enumerate() {
            assert_eq!(*feature as usize, place);
        }
    }

    #[test]
    fn helpers_are_known_by_hook_and_number() {
        let mut target = Target::common();
        assert_eq!(target.has_helper(Hook::Xdp, 44), None);
        target.set_helper(Hook::Xdp, 44);
        assert_eq!(target.has_helper(Hook::Xdp, 44), Some(true));
        assert_eq!(target.has_helper(Hook::Tc, 44), Some(false));
        assert_eq!(target.has_helper(Hook::Xdp, 1000), None);
    }
}
