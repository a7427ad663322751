//! The typed builder.

mod compile;
mod condition;
mod context;
mod error;
mod function;
mod ir;
mod maps;
mod memory;
mod packet;
mod scalar;
mod value;

pub use condition::Cond;
pub use context::{
    TC_ACT_OK, TC_ACT_SHOT, TC_ACT_UNSPEC, XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX,
};
pub use error::{BuildError, BuildErrorKind};
pub use function::{Function, Kind, Loop, Tc, Xdp, classifier, xdp};
pub use maps::{Array, BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, ProgArray, Record, RingBuf};
pub use memory::Ptr;
pub use packet::{Packet, View};
pub use scalar::{Be, Cell, Field, Int, Le, Ordered, Scalar, Signed, Unsigned};
pub use value::{IntoVal, Val, Var};
