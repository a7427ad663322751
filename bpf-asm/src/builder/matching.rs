//! Matching a value against constants.

use super::error::BuildErrorKind;
use super::function::{Function, Kind};
use super::ir::{BlockId, Body};
use super::scalar::Scalar;
use super::value::{IntoVal, Val};

/// A match that is being written: cases, then [`otherwise`](Match::otherwise).
#[must_use = "a match ends with `otherwise`"]
pub struct Match<'f, T> {
    body: &'f Body,
    value: Val<'f, T>,
    join: BlockId,
    seen: Vec<u64>,
}

impl<'f, K: Kind> Function<'f, K> {
    /// Compares a value with constants, in their order, and does what belongs to the first that it equals.
    ///
    /// ```
    /// # use bpf_asm::builder::{xdp, Be, XDP_DROP, XDP_PASS, XDP_TX};
    /// # use zerocopy::byteorder::big_endian::U16;
    /// xdp("by_type", |f| {
    ///     let packet = f.packet();
    ///     let ethertype = packet.view::<[U16; 7]>(0, || f.ret(XDP_PASS)).element(6).read();
    ///     f.match_(ethertype)
    ///         .case(Be::new(0x0800), || f.ret(XDP_TX))
    ///         .any_of([Be::new(0x8100), Be::new(0x88a8)], || f.ret(XDP_DROP))
    ///         .otherwise(|| f.ret(XDP_PASS));
    /// })?;
    /// # Ok::<(), bpf_asm::builder::BuildError>(())
    /// ```
    #[track_caller]
    pub fn match_<T: Scalar>(self, value: impl IntoVal<'f, T>) -> Match<'f, T> {
        let body = self.body;
        let value = Val::new(body, value.operand(body));
        let join = body.block();
        Match {
            body,
            value,
            join,
            seen: Vec::new(),
        }
    }
}

impl<T: Scalar> Match<'_, T> {
    /// What to do for this constant.
    #[track_caller]
    pub fn case(self, constant: T, then: impl FnOnce()) -> Self {
        self.any_of([constant], then)
    }

    /// What to do for any of these constants.
    #[track_caller]
    pub fn any_of<const N: usize>(mut self, constants: [T; N], then: impl FnOnce()) -> Self {
        let body = self.body;
        let (yes, no) = (body.block(), body.block());
        for (place, constant) in constants.into_iter().enumerate() {
            let value = constant.register();
            if self.seen.contains(&value) {
                body.fail(BuildErrorKind::DuplicateCase { value });
            }
            self.seen.push(value);
            let last = place + 1 == N;
            let next = if last { no } else { body.block() };
            self.value.eq(constant).branch(yes, next);
            if !last {
                body.begin(next);
            }
        }
        if N == 0 {
            body.jump(no);
        }
        body.begin(yes);
        body.scoped(then);
        body.jump(self.join);
        body.begin(no);
        self
    }

    /// What to do for everything else; the match ends here.
    #[track_caller]
    pub fn otherwise(self, otherwise: impl FnOnce()) {
        let body = self.body;
        body.scoped(otherwise);
        body.jump(self.join);
        body.begin(self.join);
    }
}
