//! The assembler: a method per mnemonic, labels, and one error at the end that says where in Rust it began.
//!
//! Complete on its own, and the floor that the typed builder lowers onto. It never chooses registers and never
//! reorders; the only instructions it adds are those of a far jump, where [`Assembler::allow_long_jumps`] lets it.
//!
//! ```
//! use bpf_asm::asm::Assembler;
//! use bpf_asm::insn::Reg;
//!
//! let mut a = Assembler::new("pass_long_packets");
//! let short = a.label();
//! a.ldx_w(Reg::R2, Reg::R1, 0).ldx_w(Reg::R3, Reg::R1, 4).add64_imm(Reg::R2, 64);
//! a.jgt64(Reg::R2, Reg::R3, short).mov64_imm(Reg::R0, 2).exit();
//! a.bind(short).mov64_imm(Reg::R0, 1).exit();
//! let function = a.finish().unwrap();
//! assert_eq!(function.insns.len(), 8);
//! ```

mod layout;
mod mnemonics;
#[cfg(test)]
mod tests;

use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::insn::{IllegalInsn, Imm64, Insn, JumpOp, Reg, Source, Width};
use crate::program::{Function, Line, Relocation, Target};

/// A place in one assembler's code, possibly not there yet. Any other assembler refuses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Label {
    assembler: u64,
    index: usize,
}

/// The first thing that went wrong in an [`Assembler`], and where in the author's source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:{}:{}: {fault}", at.file, at.line, at.column)]
pub struct AsmError {
    /// The call that was wrong, or the jump that could not be laid out.
    pub at: Line,
    /// What was wrong.
    pub fault: Fault,
}

/// What can go wrong in an [`Assembler`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A label of another assembler.
    #[error("this label belongs to another assembler")]
    ForeignLabel,
    /// A jump to a label that is never bound.
    #[error("this jump's label is never bound")]
    Unbound,
    /// A label bound in two places.
    #[error("this label is already bound")]
    BoundTwice,
    /// A jump to behind the last instruction.
    #[error("this jump leaves the function")]
    OutOfFunction,
    /// A jump given as an offset that ends inside a two-slot instruction.
    #[error("this jump ends in the middle of an instruction")]
    MidInstruction,
    /// A jump that its offset field has no room for.
    #[error("this jump spans {slots} slots, more than its offset can say")]
    TooFar {
        /// The distance.
        slots: i64,
    },
    /// Fields that make no instruction.
    #[error(transparent)]
    Illegal(#[from] IllegalInsn),
    /// A function without instructions.
    #[error("the function `{0}` is empty")]
    Empty(String),
}

/// Assembles one function.
///
/// Methods return the assembler so that calls can be chained. After the first error the rest is still accepted, and
/// [`finish`](Assembler::finish) reports that first error.
#[derive(Debug)]
pub struct Assembler {
    id: u64,
    name: String,
    arguments: usize,
    items: Vec<Item>,
    /// For each label the index of the item it stands before.
    labels: Vec<Option<usize>>,
    relocations: Vec<Relocation>,
    line: Option<Line>,
    created: Line,
    long_jumps: bool,
    error: Option<AsmError>,
}

/// An instruction as written; a jump's offset is filled in when the function is laid out.
#[derive(Clone, Copy, Debug)]
struct Item {
    insn: Insn,
    line: Line,
    label: Option<usize>,
}

impl Assembler {
    /// Starts the function `name`, of one argument: the context.
    #[track_caller]
    pub fn new(name: impl Into<String>) -> Assembler {
        // The number only tells assemblers apart; it never reaches the output.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Assembler {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            name: name.into(),
            arguments: 1,
            items: Vec::new(),
            labels: Vec::new(),
            relocations: Vec::new(),
            line: None,
            created: Location::caller().into(),
            long_jumps: false,
            error: None,
        }
    }

    /// Says how many arguments (r1 and up, at most 5) the function takes.
    pub fn arguments(&mut self, count: usize) -> &mut Assembler {
        self.arguments = count;
        self
    }

    /// Lets jumps that are too far for 16 bits become `gotol`, for targets that have it. A conditional one becomes
    /// three instructions.
    pub fn allow_long_jumps(&mut self) -> &mut Assembler {
        self.long_jumps = true;
        self
    }

    /// Attributes the instructions that follow to `line` instead of to the calls that emit them.
    pub fn at(&mut self, line: Line) -> &mut Assembler {
        self.line = Some(line);
        self
    }

    /// Ends what [`at`](Assembler::at) began.
    pub fn at_caller(&mut self) -> &mut Assembler {
        self.line = None;
        self
    }

    /// How many instructions there are so far, a 64-bit immediate load counting as one.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no instruction yet.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The first error so far, for callers that would rather stop early.
    pub fn first_error(&self) -> Option<&AsmError> {
        self.error.as_ref()
    }

    /// Makes a label, to be bound once.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label {
            assembler: self.id,
            index: self.labels.len() - 1,
        }
    }

    /// Binds `label` to the instruction that comes next.
    #[track_caller]
    pub fn bind(&mut self, label: Label) -> &mut Assembler {
        let line = self.current_line();
        let here = self.items.len();
        match self.own(label) {
            None => self.fail(line, Fault::ForeignLabel),
            Some(index) if self.labels[index].is_some() => self.fail(line, Fault::BoundTwice),
            Some(index) => self.labels[index] = Some(here),
        }
        self
    }

    /// Adds any instruction. A jump's offset has to lead to an instruction of this function; it is adjusted if far
    /// jumps in between grow. A local call is better added with [`call_local`](Assembler::call_local).
    #[track_caller]
    pub fn emit(&mut self, insn: Insn) -> &mut Assembler {
        let line = self.current_line();
        if let Err(illegal) = insn.check() {
            self.fail(line, illegal.into());
        }
        self.items.push(Item {
            insn,
            line,
            label: None,
        });
        self
    }

    /// Adds a jump, of whichever kind, to a label; the offset in `insn` is ignored.
    #[track_caller]
    fn emit_to(&mut self, insn: Insn, label: Label) -> &mut Assembler {
        let line = self.current_line();
        let label = self.own(label);
        if label.is_none() {
            self.fail(line, Fault::ForeignLabel);
        }
        self.items.push(Item { insn, line, label });
        self
    }

    /// Jumps to `label` if `dst op src`.
    #[track_caller]
    pub fn jump(
        &mut self,
        width: Width,
        op: JumpOp,
        dst: Reg,
        src: impl Into<Source>,
        label: Label,
    ) -> &mut Assembler {
        let src = src.into();
        let insn = Insn::Jump {
            width,
            op,
            dst,
            src,
            offset: 0,
        };
        self.emit_to(insn, label)
    }

    /// Jumps to `label`.
    #[track_caller]
    pub fn goto(&mut self, label: Label) -> &mut Assembler {
        self.emit_to(Insn::Goto { offset: 0 }, label)
    }

    /// Jumps to `label` with a 32-bit offset, however near it is.
    #[track_caller]
    pub fn gotol(&mut self, label: Label) -> &mut Assembler {
        self.emit_to(Insn::GotoLong { offset: 0 }, label)
    }

    /// Jumps to `label` once the kernel's loop budget is used up.
    #[track_caller]
    pub fn may_goto(&mut self, label: Label) -> &mut Assembler {
        self.emit_to(Insn::MayGoto { offset: 0 }, label)
    }

    /// `dst` = the address of the map `name`, filled in by the loader.
    #[track_caller]
    pub fn load_map(&mut self, dst: Reg, name: impl Into<String>) -> &mut Assembler {
        self.relocate(Target::Map(name.into()));
        self.emit(Insn::LoadImm64 {
            dst,
            value: Imm64::Map,
        })
    }

    /// Calls the subprogram `name` of the same program.
    #[track_caller]
    pub fn call_local(&mut self, name: impl Into<String>) -> &mut Assembler {
        self.relocate(Target::Subprogram(name.into()));
        self.emit(Insn::CallLocal { offset: -1 })
    }

    /// Lays the function out.
    ///
    /// # Errors
    /// The first error of any call so far, else the first jump that can't be laid out.
    pub fn finish(self) -> Result<Function, AsmError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if self.items.is_empty() {
            return Err(AsmError {
                at: self.created,
                fault: Fault::Empty(self.name),
            });
        }
        let laid_out = layout::lay_out(&self.items, &self.labels, self.long_jumps)?;
        let relocations = self.relocations.into_iter().map(|relocation| Relocation {
            at: laid_out.places[relocation.at],
            ..relocation
        });
        Ok(Function {
            name: self.name,
            arguments: self.arguments,
            relocations: relocations.collect(),
            insns: laid_out.insns,
            lines: laid_out.lines,
        })
    }

    fn relocate(&mut self, target: Target) {
        let at = self.items.len();
        self.relocations.push(Relocation { at, target });
    }

    fn own(&self, label: Label) -> Option<usize> {
        (label.assembler == self.id).then_some(label.index)
    }

    fn fail(&mut self, at: Line, fault: Fault) {
        self.error.get_or_insert(AsmError { at, fault });
    }

    #[track_caller]
    fn current_line(&self) -> Line {
        // Not a closure: the caller of one is not the author.
        match self.line {
            Some(line) => line,
            None => Location::caller().into(),
        }
    }
}
