//! One virtual CPU in the middle of a run: registers, frames, packet, and what the program holds.

use std::rc::Rc;

use super::context::Context;
use super::fault::{Fault, FaultKind, Place};
use super::frame::{Caller, Frame, MAX_FRAMES, Return, STACK_BYTES};
use super::image::{Hook, Image, Op};
use super::map::Reservation;
use super::packet::{Buffer, Input, Output, OutputKind, SkbInput, XdpInput};
use super::state::State;
use super::value::{Pointer, Region, Value};

/// How often a program may be left for another: `MAX_TAIL_CALL_CNT`.
pub const MAX_TAIL_CALLS: u32 = 33;
/// Rounds that all `may_goto` of one run share: `BPF_MAX_LOOPS`.
pub const MAY_GOTO_ROUNDS: u32 = 8 << 20;

/// A reserved ring buffer record.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenRecord {
    pub(super) map: u32,
    pub(super) reservation: Reservation,
    pub(super) open: bool,
    pub(super) lookup: u32,
}

/// Where a redirect helper wants the packet to go.
#[derive(Clone, Debug)]
pub(super) struct Redirect {
    pub(super) kind: OutputKind,
    pub(super) to: Vec<u32>,
    pub(super) flags: u64,
}

/// What an operation did to the flow of control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Goes on at the program counter.
    Next,
    /// Goes on in another image.
    Switched,
    /// Has to be tried again: a spin lock is held by another CPU.
    Blocked,
    /// The program returned.
    Exited(u64),
}

/// The CPU.
#[derive(Debug)]
pub(crate) struct Cpu {
    pub(super) number: u32,
    pub(super) registers: [Value; 11],
    pub(super) pc: u32,
    pub(super) image: Rc<Image>,
    /// Frames in use are those up to `frame`; the others are kept for their memory.
    pub(super) frames: Vec<Frame>,
    pub(super) frame: usize,
    serial: u32,
    pub(super) hook: Hook,
    pub(super) context: Context,
    pub(super) buffer: Buffer,
    pub(super) memory: Vec<u8>,
    pub(super) tail_calls: u32,
    pub(super) may_goto: u32,
    pub(super) executed: u64,
    pub(super) budget: u64,
    pub(super) records: Vec<OpenRecord>,
    /// Look-ups whose results were not compared with null yet.
    pub(super) unchecked: Vec<u32>,
    lookups: u32,
    /// The spin lock that is held: map, place, offset.
    pub(super) lock: Option<(u32, u32, i64)>,
    pub(super) redirect: Option<Redirect>,
    pub(super) outputs: Vec<Output>,
    /// A buffer for keys, kept for its memory.
    pub(super) key: Vec<u8>,
}

impl Cpu {
    /// At the first instruction of `image`, called with `input`.
    pub(crate) fn new(number: u32, image: Rc<Image>, input: Input, budget: u64) -> Cpu {
        let hook = image.hook;
        let mut memory = Vec::new();
        let (context, buffer) = match input {
            Input::Memory(bytes) => {
                memory = bytes;
                let buffer = Buffer::new(&[], 0);
                match hook {
                    Hook::Raw => (Context::Raw, buffer),
                    Hook::Xdp => (
                        Context::Xdp(XdpInput::default()),
                        Buffer::new(&memory, memory.len()),
                    ),
                    Hook::Tc => (
                        Context::Skb(Box::default()),
                        Buffer::new(&memory, memory.len()),
                    ),
                }
            }
            Input::Xdp(mut xdp) => {
                let packet = std::mem::take(&mut xdp.packet);
                let buffer = Buffer::new(&packet, xdp.linear.unwrap_or(packet.len()));
                (Context::Xdp(xdp), buffer)
            }
            Input::Skb(mut skb) => {
                let packet = std::mem::take(&mut skb.packet);
                let buffer = Buffer::new(&packet, skb.linear.unwrap_or(packet.len()));
                (Context::Skb(Box::new(skb)), buffer)
            }
        };
        let mut cpu = Cpu {
            number,
            registers: [Value::Uninit; 11],
            pc: 0,
            image,
            frames: vec![Frame::new()],
            frame: 0,
            serial: 1,
            hook,
            context,
            buffer,
            memory,
            tail_calls: 0,
            may_goto: MAY_GOTO_ROUNDS,
            executed: 0,
            budget,
            records: Vec::new(),
            unchecked: Vec::new(),
            lookups: 0,
            lock: None,
            redirect: None,
            outputs: Vec::new(),
            key: Vec::new(),
        };
        cpu.frames[0].clear(1, Return::End);
        cpu.set_frame_pointer();
        if hook == Hook::Raw {
            cpu.registers[1] = pointer(Region::Memory, 0);
            cpu.registers[2] = Value::Scalar(cpu.memory.len() as u64);
        } else {
            cpu.registers[1] = pointer(Region::Context, 0);
        }
        cpu
    }

    /// The socket buffer's metadata.
    pub(super) fn skb(&mut self) -> Option<&mut SkbInput> {
        match &mut self.context {
            Context::Skb(skb) => Some(skb),
            _ => None,
        }
    }

    /// A number for the result of a look-up, which has to be compared with null.
    pub(super) fn new_lookup(&mut self) -> u32 {
        self.lookups += 1;
        self.unchecked.push(self.lookups);
        self.lookups
    }

    /// Enters a function in a new frame.
    pub(super) fn enter(&mut self, entry: u32, after: Return) -> Result<(), FaultKind> {
        if self.frame + 1 >= MAX_FRAMES {
            return Err(FaultKind::CallDepth(MAX_FRAMES));
        }
        self.frame += 1;
        if self.frame == self.frames.len() {
            self.frames.push(Frame::new());
        }
        self.serial += 1;
        self.frames[self.frame].clear(self.serial, after);
        self.check_stack()?;
        self.registers[0] = Value::Uninit;
        self.registers[6..10].fill(Value::Uninit);
        self.set_frame_pointer();
        self.pc = entry;
        Ok(())
    }

    /// What a caller must get back.
    pub(super) fn caller(&self) -> Caller {
        let [.., r6, r7, r8, r9, _] = self.registers;
        Caller {
            image: Rc::clone(&self.image),
            pc: self.pc,
            saved: [r6, r7, r8, r9],
        }
    }

    /// Leaves the frame for its caller.
    pub(super) fn leave(&mut self, caller: Caller) -> Flow {
        self.frame -= 1;
        self.registers[1..6].fill(Value::Uninit);
        self.registers[6..10].copy_from_slice(&caller.saved);
        self.set_frame_pointer();
        self.pc = caller.pc;
        if Rc::ptr_eq(&self.image, &caller.image) {
            Flow::Next
        } else {
            self.image = caller.image;
            Flow::Switched
        }
    }

    /// Goes on in another program, in this frame.
    pub(super) fn switch(&mut self, image: Rc<Image>) {
        self.image = image;
        self.pc = 0;
        self.serial += 1;
        let after = std::mem::replace(&mut self.frames[self.frame].after, Return::End);
        self.frames[self.frame].clear(self.serial, after);
        self.registers = [Value::Uninit; 11];
        self.registers[1] = pointer(Region::Context, 0);
        self.set_frame_pointer();
    }

    /// All frames together have 512 bytes.
    pub(super) fn check_stack(&self) -> Result<(), FaultKind> {
        let frames = &self.frames[..=self.frame];
        let bytes: usize = frames.iter().map(|frame| frame.rounded_depth()).sum();
        if bytes > STACK_BYTES {
            return Err(FaultKind::StackDepth {
                bytes: bytes as u64,
            });
        }
        Ok(())
    }

    /// Runs until the program returns.
    pub(super) fn run(&mut self, state: &mut State) -> Result<u64, Fault> {
        loop {
            let image = Rc::clone(&self.image);
            loop {
                match self.one(&image, state)? {
                    Flow::Next | Flow::Blocked => {}
                    Flow::Switched => break,
                    Flow::Exited(r0) => return Ok(r0),
                }
            }
        }
    }

    /// Runs one operation of `image`, which must be the current one.
    #[inline]
    pub(super) fn one(&mut self, image: &Image, state: &mut State) -> Result<Flow, Fault> {
        let at = self.pc;
        let Some(op) = image.ops.get(at as usize) else {
            return Err(self.fault(image, at, FaultKind::OutOfProgram));
        };
        if self.executed >= self.budget {
            return Err(self.fault(image, at, FaultKind::Budget(self.budget)));
        }
        self.executed += 1;
        self.pc = at + 1;
        match self.execute(state, *op) {
            Ok(Flow::Blocked) => {
                self.pc = at;
                Ok(Flow::Blocked)
            }
            Ok(flow) => Ok(flow),
            Err(kind) => Err(self.fault(image, at, kind)),
        }
    }

    /// The operation that comes next.
    pub(super) fn next_op(&self) -> Option<Op> {
        self.image.ops.get(self.pc as usize).copied()
    }

    #[cold]
    fn fault(&mut self, image: &Image, at: u32, kind: FaultKind) -> Fault {
        self.pc = at;
        let at = at as usize;
        let end = image.slots.last().map_or(0, |last| last + 1);
        Fault {
            kind,
            at: Box::new(Place {
                program: image.name.to_string(),
                slot: image.slots.get(at).copied().unwrap_or(end),
                insn: image.insns.get(at).copied(),
                line: image.line(at),
            }),
        }
    }

    fn set_frame_pointer(&mut self) {
        let region = Region::Stack {
            frame: self.frame as u8,
            serial: self.frames[self.frame].serial,
        };
        self.registers[10] = pointer(region, 0);
    }
}

/// A pointer as a register has it.
pub(super) fn pointer(region: Region, offset: i64) -> Value {
    Value::Pointer(Pointer { region, offset })
}
