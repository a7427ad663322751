//! A function's stack frame: 512 bytes, which of them were written, and where pointers are.

use std::rc::Rc;

use super::fault::FaultKind;
use super::image::Image;
use super::memory::{read_word, write_word};
use super::value::{Pointer, Region, Value};
use crate::insn::Size;

/// `MAX_BPF_STACK`, over all frames together.
pub const STACK_BYTES: usize = 512;
/// The kernel's `MAX_CALL_FRAMES`.
pub const MAX_FRAMES: usize = 8;

/// What happens when the frame's function returns.
#[derive(Clone, Debug)]
pub(super) enum Return {
    /// The program ends.
    End,
    /// The caller goes on.
    Caller(Caller),
    /// A helper calls it again or goes on in the caller.
    Callback { caller: Caller, next: Callback },
}

/// What a call keeps of its caller.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) image: Rc<Image>,
    pub(super) pc: u32,
    pub(super) saved: [Value; 4],
}

/// Where an iterating helper has got to.
#[derive(Clone, Debug)]
pub(super) enum Callback {
    /// `bpf_loop`.
    Loop {
        entry: u32,
        done: u64,
        of: u64,
        context: Value,
    },
    /// `bpf_for_each_map_elem`.
    Elements {
        entry: u32,
        map: u32,
        left: Vec<u32>,
        done: u64,
        context: Value,
    },
}

/// A frame.
#[derive(Debug)]
pub(super) struct Frame {
    bytes: [u8; STACK_BYTES],
    /// A bit for each byte that was written.
    written: [u64; STACK_BYTES / 64],
    /// A bit for each 8-byte slot that holds a pointer.
    has_pointer: u64,
    pointers: [Option<Pointer>; STACK_BYTES / 8],
    pub(super) serial: u32,
    /// Bytes from the frame pointer down to the lowest one used.
    pub(super) depth: usize,
    pub(super) after: Return,
}

impl Frame {
    pub(super) fn new() -> Frame {
        Frame {
            bytes: [0; STACK_BYTES],
            written: [0; STACK_BYTES / 64],
            has_pointer: 0,
            pointers: [None; STACK_BYTES / 8],
            serial: 0,
            depth: 0,
            after: Return::End,
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self, serial: u32, after: Return) {
        self.written = [0; STACK_BYTES / 64];
        self.has_pointer = 0;
        self.serial = serial;
        self.depth = 0;
        self.after = after;
    }

    /// Bytes as the kernel counts a frame.
    pub(super) fn rounded_depth(&self) -> usize {
        self.depth.max(1).next_multiple_of(32)
    }

    /// The word (at most 8 bytes, aligned to its size) at `at` bytes above the lowest address.
    #[inline]
    pub(super) fn load(&self, at: usize, size: Size) -> Result<Value, FaultKind> {
        if self.has_pointer >> (at / 8) & 1 != 0 {
            return match self.pointers[at / 8] {
                Some(pointer) if size == Size::DW => Ok(Value::Pointer(pointer)),
                _ => Err(FaultKind::PartOfPointer(self.address(at))),
            };
        }
        let mask = mask(at, usize::from(size.bytes()));
        if self.written[at / 64] & mask != mask {
            return Err(FaultKind::UninitialisedStack(self.address(at)));
        }
        Ok(Value::Scalar(read_word(&self.bytes, at, size)))
    }

    /// Writes a word (at most 8 bytes, aligned to its size); a pointer only as a whole.
    #[inline]
    pub(super) fn store(&mut self, at: usize, size: Size, value: Value) -> Result<(), FaultKind> {
        let bytes = usize::from(size.bytes());
        match value {
            Value::Scalar(value) => {
                if self.has_pointer != 0 {
                    self.overwrite(at, bytes);
                }
                write_word(&mut self.bytes, at, size, value);
                self.written[at / 64] |= mask(at, bytes);
                Ok(())
            }
            Value::Pointer(pointer) if bytes == 8 => {
                self.has_pointer |= 1 << (at / 8);
                self.pointers[at / 8] = Some(pointer);
                self.written[at / 64] |= mask(at, 8);
                Ok(())
            }
            _ => Err(FaultKind::PartOfPointer(self.address(at))),
        }
    }

    /// Copies bytes out, for a helper.
    pub(super) fn read(&self, at: usize, out: &mut [u8]) -> Result<(), FaultKind> {
        let range = at..at + out.len();
        for at in range.clone() {
            let pointer = self.has_pointer >> (at / 8) & 1 != 0;
            if pointer || self.written[at / 64] >> (at % 64) & 1 == 0 {
                return self.load(at, Size::B).map(drop);
            }
        }
        out.copy_from_slice(&self.bytes[range]);
        Ok(())
    }

    /// Copies bytes in, for a helper.
    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) {
        for (at, byte) in (at..).zip(bytes) {
            self.overwrite(at, 1);
            self.bytes[at] = *byte;
            self.written[at / 64] |= mask(at, 1);
        }
    }

    /// What is left of a pointer that is written over in part is no value any more.
    fn overwrite(&mut self, at: usize, bytes: usize) {
        let slot = at / 8;
        if self.has_pointer >> slot & 1 != 0 {
            self.has_pointer &= !(1 << slot);
            if bytes < 8 {
                self.written[at / 64] &= !mask(slot * 8, 8);
            }
        }
    }

    fn address(&self, at: usize) -> Pointer {
        // The frame's number is filled in by who knows it: errors name the offset.
        Pointer {
            region: Region::Stack {
                frame: 0,
                serial: self.serial,
            },
            offset: at as i64 - STACK_BYTES as i64,
        }
    }
}

/// The bits of aligned bytes within their word of 64.
fn mask(at: usize, bytes: usize) -> u64 {
    (u64::MAX >> (64 - bytes)) << (at % 64)
}

impl Frame {
    /// Whether a helper called the frame's function.
    pub(super) fn is_callback(&self) -> bool {
        matches!(self.after, Return::Callback { .. })
    }
}
