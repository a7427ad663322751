//! A run of a program: forwards by one instruction, to the next preemption point, or to the end.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use super::cpu::{Cpu, Flow};
use super::fault::Fault;
use super::image::Op;
use super::packet::Output;
use super::state::State;
use super::value::{Pointer, Value};
use super::{Context, SkbInput};
use crate::insn::{Insn, Reg};
use crate::program::Line;

/// The most steps that a trace keeps: the first ones.
pub const MAX_TRACE_STEPS: usize = 1 << 20;

/// A run, resumable: any number of them, on any CPUs, can be interleaved with each other and with user space.
///
/// What one step does is one indivisible act; memory is sequentially consistent.
pub struct Run {
    state: Rc<RefCell<State>>,
    cpu: Cpu,
    result: Option<Result<u64, Fault>>,
    /// Whether the instruction that comes next was reported as a preemption point.
    at_point: bool,
    trace: Option<Vec<Step>>,
}

/// What an instruction reaches that others may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It reads memory.
    Load(Pointer),
    /// It writes memory.
    Store(Pointer),
    /// It does both at once, or one of them in order.
    Atomic(Pointer),
    /// It calls this helper.
    Helper(u32),
}

/// A place where another CPU or user space may come in between: before this instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// The instruction's number in 8-byte slots.
    pub slot: usize,
    /// Where it was written.
    pub line: Option<Line>,
    /// What it is going to do.
    pub access: Access,
}

/// How far [`Run::run_until_preemption_point`] got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// To a preemption point.
    At(Point),
    /// To the end: r0.
    Done(u64),
}

/// What one instruction did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its program.
    pub program: Rc<str>,
    /// Its number in 8-byte slots.
    pub slot: usize,
    /// Depth of its function, 0 for the main one.
    pub depth: usize,
    /// The instruction.
    pub insn: Insn,
    /// Where it was written.
    pub line: Option<Line>,
    /// The register that it wrote, and what.
    pub wrote: Option<(Reg, Value)>,
    /// The memory or the helper that it used.
    pub access: Option<Access>,
    /// It was a spin lock that another CPU holds: nothing happened, and it comes again.
    pub blocked: bool,
    /// r0, when the program ended.
    pub ended: Option<u64>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>5}: {:indent$}{}",
            self.slot,
            "",
            self.insn,
            indent = 2 * self.depth
        )?;
        if let Some((register, value)) = self.wrote {
            write!(f, "  ; {register:?}={value}")?;
        }
        if let Some(Access::Load(at) | Access::Store(at) | Access::Atomic(at)) = self.access {
            write!(f, "  @ {at}")?;
        }
        if self.blocked {
            f.write_str("  (waits for the lock)")?;
        }
        if let Some(Line { file, line, .. }) = self.line {
            write!(f, "  {file}:{line}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("cpu", &self.cpu.number)
            .field("program", &self.cpu.image.name)
            .field("slot", &self.slot())
            .field("result", &self.result)
            .finish_non_exhaustive()
    }
}

impl Run {
    pub(super) fn new(state: Rc<RefCell<State>>, cpu: Cpu) -> Run {
        Run {
            state,
            cpu,
            result: None,
            at_point: false,
            trace: None,
        }
    }

    /// Keeps what every instruction does from now on ([`Run::trace`]).
    #[must_use]
    pub fn traced(mut self) -> Run {
        self.trace = Some(Vec::new());
        self
    }

    /// Runs to the end: r0.
    ///
    /// # Errors
    /// The rule that the program broke. A run that failed fails again in the same way.
    pub fn run(&mut self) -> Result<u64, Fault> {
        if let Some(result) = &self.result {
            return result.clone();
        }
        if self.trace.is_some() {
            loop {
                if let Some(r0) = self.step()?.ended {
                    return Ok(r0);
                }
            }
        }
        let result = self.cpu.run(&mut self.state.borrow_mut());
        self.result = Some(result.clone());
        result
    }

    /// Runs one instruction.
    ///
    /// # Errors
    /// The rule that the program broke. A run that failed fails again in the same way.
    ///
    /// # Panics
    /// When the run has ended already ([`Run::result`]): a mistake of the caller.
    pub fn step(&mut self) -> Result<Step, Fault> {
        match &self.result {
            Some(Err(fault)) => return Err(fault.clone()),
            Some(Ok(_)) => panic!("a run that has ended has no next step"),
            None => {}
        }
        self.at_point = false;
        let image = Rc::clone(&self.cpu.image);
        let at = self.cpu.pc as usize;
        let depth = self.cpu.frame;
        let access = self.access();
        let flow = match self.cpu.one(&image, &mut self.state.borrow_mut()) {
            Ok(flow) => flow,
            Err(fault) => {
                self.result = Some(Err(fault.clone()));
                return Err(fault);
            }
        };
        let ended = match flow {
            Flow::Exited(r0) => Some(r0),
            _ => None,
        };
        if let Some(r0) = ended {
            self.result = Some(Ok(r0));
        }
        // `one` has found an operation there, and there is an instruction for each.
        let insn = image.insns[at];
        let wrote = written(&insn).map(|register| {
            let value = self.cpu.registers[usize::from(register.number())];
            (register, value)
        });
        let step = Step {
            program: Rc::clone(&image.name),
            slot: image.slots[at],
            depth,
            insn,
            line: image.line(at),
            wrote: wrote.filter(|(_, value)| *value != Value::Uninit),
            access,
            blocked: flow == Flow::Blocked,
            ended,
        };
        if let Some(trace) = &mut self.trace
            && trace.len() < MAX_TRACE_STEPS
        {
            trace.push(step.clone());
        }
        Ok(step)
    }

    /// Runs up to the next instruction that reads or writes what others may see (a shared map's values, a ring buffer, the
    /// index of a map that can change), without running it; the next call begins with it. Several of them in a row are
    /// several points.
    ///
    /// # Errors
    /// The rule that the program broke.
    pub fn run_until_preemption_point(&mut self) -> Result<Progress, Fault> {
        if let Some(result) = &self.result {
            return result.clone().map(Progress::Done);
        }
        if self.at_point {
            self.at_point = false;
            if let Some(done) = self.advance()? {
                return Ok(Progress::Done(done));
            }
        }
        loop {
            if let Some(point) = self.point() {
                self.at_point = true;
                return Ok(Progress::At(point));
            }
            if let Some(done) = self.advance()? {
                return Ok(Progress::Done(done));
            }
        }
    }

    /// The preemption point that the run is at, if the next instruction is one.
    pub fn point(&self) -> Option<Point> {
        let access = self.shared_access()?;
        let image = &self.cpu.image;
        let at = self.cpu.pc as usize;
        Some(Point {
            slot: image.slots[at],
            line: image.line(at),
            access,
        })
    }

    /// r0 or the broken rule, once the run has ended.
    pub fn result(&self) -> Option<&Result<u64, Fault>> {
        self.result.as_ref()
    }

    /// The packet as it is now: headers that helpers put before it included, metadata not.
    pub fn packet(&self) -> &[u8] {
        self.cpu.buffer.packet()
    }

    /// What XDP left between `data_meta` and `data`.
    pub fn metadata(&self) -> &[u8] {
        let buffer = &self.cpu.buffer;
        &buffer.bytes[buffer.meta..buffer.data]
    }

    /// The memory of a raw program as it is now.
    pub fn memory(&self) -> &[u8] {
        &self.cpu.memory
    }

    /// A TC program's socket buffer as it is now; its `packet` is empty, see [`Run::packet`].
    pub fn skb(&self) -> Option<&SkbInput> {
        match &self.cpu.context {
            Context::Skb(skb) => Some(skb),
            _ => None,
        }
    }

    /// The packets that left by helpers so far.
    pub fn outputs(&self) -> &[Output] {
        &self.cpu.outputs
    }

    /// What the instructions did, if [`Run::traced`]: the first [`MAX_TRACE_STEPS`].
    pub fn trace(&self) -> &[Step] {
        self.trace.as_deref().unwrap_or_default()
    }

    /// Instructions so far.
    pub fn executed(&self) -> u64 {
        self.cpu.executed
    }

    /// The CPU's number.
    pub fn cpu(&self) -> u32 {
        self.cpu.number
    }

    /// A register's value.
    pub fn register(&self, register: Reg) -> Value {
        self.cpu.registers[usize::from(register.number())]
    }

    /// The next instruction's number in 8-byte slots.
    pub fn slot(&self) -> Option<usize> {
        self.cpu.image.slots.get(self.cpu.pc as usize).copied()
    }

    /// Where the next instruction was written.
    pub fn line(&self) -> Option<Line> {
        self.cpu.image.line(self.cpu.pc as usize)
    }

    /// One operation; r0 if it was the last.
    fn advance(&mut self) -> Result<Option<u64>, Fault> {
        if self.trace.is_some() {
            return self.step().map(|step| step.ended);
        }
        let image = Rc::clone(&self.cpu.image);
        match self.cpu.one(&image, &mut self.state.borrow_mut()) {
            Ok(Flow::Exited(r0)) => {
                self.result = Some(Ok(r0));
                Ok(Some(r0))
            }
            Ok(_) => Ok(None),
            Err(fault) => {
                self.result = Some(Err(fault.clone()));
                Err(fault)
            }
        }
    }

    /// What the next operation uses.
    fn access(&self) -> Option<Access> {
        let at = |base, offset| self.cpu.address(base, offset).ok();
        match self.cpu.next_op()? {
            Op::Load { base, offset, .. } => at(base, offset).map(Access::Load),
            Op::StoreImm { base, offset, .. } | Op::StoreReg { base, offset, .. } => {
                at(base, offset).map(Access::Store)
            }
            Op::Atomic { base, offset, .. } => at(base, offset).map(Access::Atomic),
            Op::Call { helper } => Some(Access::Helper(helper)),
            _ => None,
        }
    }

    /// The same, if others may see it.
    fn shared_access(&self) -> Option<Access> {
        let access = self.access()?;
        let state = self.state.borrow();
        let shared = match access {
            Access::Load(at) | Access::Store(at) | Access::Atomic(at) => {
                self.cpu.is_shared(&state, Value::Pointer(at))
            }
            Access::Helper(_) => {
                // A map whose index or contents can change, a record of a ring, or a shared value as an argument.
                let arguments = &self.cpu.registers[1..6];
                arguments.iter().any(|argument| {
                    self.cpu.is_shared(&state, *argument)
                        || Cpu::is_mutable_index(&state, *argument)
                })
            }
        };
        shared.then_some(access)
    }
}

/// The register that an instruction writes.
fn written(insn: &Insn) -> Option<Reg> {
    match insn {
        Insn::Call { .. } | Insn::CallLocal { .. } | Insn::LoadPacket { .. } => Some(Reg::R0),
        Insn::Atomic {
            op: crate::insn::AtomicOp::CompareExchange,
            ..
        } => Some(Reg::R0),
        _ => super::image::written(insn),
    }
}
