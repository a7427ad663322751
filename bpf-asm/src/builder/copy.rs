//! Copying whole structs from place to place.

use super::error::BuildErrorKind;
use super::ir::{Base, Operand};
use super::memory::Ptr;
use super::packet::View;
use super::scalar::Sealed;
use crate::insn::Size;

/// The most bytes that are copied by instructions one after another; more belongs into a loop or a helper.
const MOST_BYTES: u64 = 512;

/// A place that holds an `S`: a [`Ptr`] or a [`View`].
pub trait Place<'f, S>: Sealed {
    /// As a pointer.
    #[doc(hidden)]
    fn place(self) -> Ptr<'f, S>;
}

impl<'f, S> Place<'f, S> for Ptr<'f, S> {
    fn place(self) -> Ptr<'f, S> {
        self
    }
}

impl<S> Sealed for View<'_, '_, S> {}
impl<'f, S> Place<'f, S> for View<'_, 'f, S> {
    fn place(self) -> Ptr<'f, S> {
        self.ptr
    }
}

impl<'f, S> Ptr<'f, S> {
    /// Copies an `S` here, in pieces as wide as the places allow. They must not overlap but where they are the same.
    #[track_caller]
    pub fn copy_from(self, from: impl Place<'f, S>) {
        let from = from.place();
        let bytes = size_of::<S>() as u64;
        if bytes > MOST_BYTES {
            self.body.fail(BuildErrorKind::OutOfRange {
                index: bytes,
                len: MOST_BYTES,
            });
            return;
        }
        if !std::ptr::eq(self.body, from.body) {
            self.body.fail(BuildErrorKind::ForeignValue);
            return;
        }
        let mut done = 0;
        while done < bytes as i32 {
            let left = bytes as i32 - done;
            let sizes = [Size::DW, Size::W, Size::H, Size::B].into_iter();
            let fitting = sizes.filter(|size| {
                let bytes = i32::from(size.bytes());
                bytes <= left && [self, from].iter().all(|place| place.takes(done, bytes))
            });
            let size = fitting.max_by_key(|size| size.bytes()).unwrap_or(Size::B);
            let value = self.body.load(size, from.base, from.offset + done);
            self.body
                .store(size, self.base, self.offset + done, Operand::Reg(value));
            done += i32::from(size.bytes());
        }
    }

    /// Whether so many bytes can be accessed at once, `at` bytes from here. The verifier insists on alignment in the frame only.
    fn takes(self, at: i32, bytes: i32) -> bool {
        match self.base {
            Base::Stack(_) => (self.offset + at) % bytes == 0,
            Base::Reg(_) => true,
        }
    }
}

impl<'f, S> View<'_, 'f, S> {
    /// Copies an `S` here, as [`Ptr::copy_from`] does.
    #[track_caller]
    pub fn copy_from(self, from: impl Place<'f, S>) {
        self.ptr.copy_from(from);
    }
}
