//! The intermediate form: virtual registers in basic blocks, written by the typed layer and read by the back end.
//!
//! A virtual register is assigned once in the text of a program, except those of variables and loop counters. A value
//! narrower than 64 bits is kept zero-extended (signed 8 and 16 bits: sign-extended to 32, then zero-extended), so
//! that widening an unsigned one is free and the kernel's verifier knows its bounds.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::panic::Location;
use std::rc::Rc;

use super::error::{BuildError, BuildErrorKind};
use super::subprogram::Returned;
use crate::helper::{self, Hook};
use crate::insn::{AluOp, AtomicOp, EndianKind, JumpOp, Size, Width};
use crate::program::{Contents, Function, Global, MapDef, MapType, ProgramKind, RODATA};
use crate::target::Target as TargetFeatures;

/// `BPF_F_RDONLY_PROG`: programs can't write to the map; loaders set it for constants.
const RDONLY_PROG: u32 = 1 << 7;

/// A virtual register.
pub(super) type Reg = u32;
/// A basic block.
pub(super) type BlockId = usize;
/// Where an instruction was written.
pub(super) type At = &'static Location<'static>;

/// An operand: a register, or a constant in the form in which a register would hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// A virtual register.
    Reg(u32),
    /// A constant.
    Const(u64),
}

/// What an address is relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Base {
    /// A register.
    Reg(u32),
    /// A stack buffer, by its number.
    Stack(usize),
}

/// An argument of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arg {
    /// A value.
    Value(Operand),
    /// The address of a map, by its number in the session.
    Map(usize),
    /// An address.
    Address(Base, i32),
    /// The address of a subprogram, by its number in the session.
    Function(usize),
}

#[derive(Clone, Debug)]
pub(super) enum Callee {
    Helper(u32),
    Subprogram(usize),
}

#[derive(Clone, Debug)]
pub(super) enum Op {
    Alu {
        width: Width,
        op: AluOp,
        dst: Reg,
        a: Operand,
        b: Operand,
    },
    Copy {
        dst: Reg,
        src: Operand,
    },
    Endian {
        kind: EndianKind,
        bits: u8,
        dst: Reg,
        src: Reg,
    },
    /// The lowest `bits` as a signed number of this width.
    SignExtend {
        width: Width,
        bits: u8,
        dst: Reg,
        src: Reg,
    },
    Load {
        size: Size,
        dst: Reg,
        base: Base,
        offset: i32,
    },
    Store {
        size: Size,
        base: Base,
        offset: i32,
        src: Operand,
    },
    Atomic {
        size: Size,
        op: AtomicOp,
        base: Base,
        offset: i32,
        src: Operand,
        expected: Option<Operand>,
        dst: Option<Reg>,
    },
    Address {
        dst: Reg,
        base: Base,
        offset: i32,
    },
    /// The address of a byte in the global variables that are map number `map`.
    Global {
        dst: Reg,
        map: usize,
        offset: u32,
    },
    Call {
        callee: Callee,
        args: Vec<Arg>,
        dst: Option<Reg>,
    },
    /// Marks that ring buffer record `0` is open from here.
    OpenRecord(usize),
    /// Marks that ring buffer record `0` is closed here.
    CloseRecord(usize),
}

#[derive(Clone, Debug)]
pub(super) enum Terminator {
    Jump(BlockId),
    Branch {
        width: Width,
        op: JumpOp,
        a: Operand,
        b: Operand,
        then: BlockId,
        otherwise: BlockId,
    },
    /// On to `out` once the kernel's loop budget is used up.
    MayGoto {
        out: BlockId,
        go_on: BlockId,
    },
    Return(Operand),
}

#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) ops: Vec<(Op, At)>,
    pub(super) end: Option<(Terminator, At)>,
    /// How many loops are around it.
    pub(super) depth: u32,
    /// On the way to a failure: laid out after everything else.
    pub(super) cold: bool,
}

/// What is known of a virtual register.
#[derive(Clone, Copy, Debug)]
pub(super) struct RegInfo {
    /// The verifier treats it as a pointer.
    pub(super) pointer: bool,
    /// Assigned more than once.
    pub(super) variable: bool,
    /// No value above this.
    pub(super) max: u64,
}

/// How a register was computed, where a later operation can use that.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    Swapped {
        src: Reg,
        kind: EndianKind,
        bits: u8,
    },
    Masked {
        a: Operand,
        b: Operand,
    },
}

/// The state of the function that is being written.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) blocks: Vec<Block>,
    /// Blocks in the order in which they were begun.
    pub(super) order: Vec<BlockId>,
    pub(super) regs: Vec<RegInfo>,
    pub(super) origins: HashMap<Reg, Origin>,
    /// Bytes of each stack buffer, and where it was asked for.
    pub(super) buffers: Vec<(u32, At)>,
    /// Where each ring buffer record was reserved.
    pub(super) records: Vec<At>,
    /// One buffer per size for the keys of map look-ups and one for values, used again by each.
    pub(super) key_buffers: HashMap<(u32, bool), usize>,
    pub(super) conditions: Vec<super::condition::Node>,
    /// What packet checks have proven for the code being written.
    proven: Vec<Proven>,
    current: Option<BlockId>,
    depth: u32,
    cold: u32,
}

/// A bounds check that has been passed: `bytes` from `start` lie before `end`.
#[derive(Clone, Copy, Debug)]
struct Proven {
    start: Reg,
    end: Reg,
    bytes: u64,
}

/// What the functions of one program share.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// Unlike that of any other program.
    pub(super) id: u64,
    pub(super) target: TargetFeatures,
    pub(super) kind: Option<ProgramKind>,
    pub(super) maps: Vec<MapDef>,
    pub(super) subprograms: Vec<Function>,
    /// The stack below each subprogram, its own frame included.
    pub(super) subprogram_stack: Vec<u32>,
    pub(super) error: Option<BuildError>,
}

/// One function under construction. Opaque: it appears in bounds only.
#[derive(Debug)]
pub struct Body {
    pub(super) state: RefCell<State>,
    pub(super) session: Rc<RefCell<Session>>,
    /// What a subprogram returns; the main function has none.
    pub(super) returned: Option<Returned>,
    /// The context, if the function has it.
    pub(super) context: Cell<Option<Reg>>,
    /// Stack below the deepest subprogram that it calls.
    pub(super) callee_stack: Cell<u32>,
    /// Whether it has a loop that ends by the kernel's budget.
    pub(super) may_goto: Cell<bool>,
    pub(super) arguments: Vec<Reg>,
    /// The line that instructions are put down to, if it isn't that of the caller.
    line: Cell<Option<At>>,
}

impl Body {
    pub(super) fn new(
        session: Rc<RefCell<Session>>,
        returned: Option<Returned>,
        arguments: usize,
    ) -> Body {
        let mut body = Body {
            state: RefCell::default(),
            session,
            returned,
            context: Cell::new(None),
            callee_stack: Cell::new(0),
            may_goto: Cell::new(false),
            arguments: Vec::new(),
            line: Cell::new(None),
        };
        for _ in 0..arguments {
            let reg = body.fresh(returned.is_none(), u64::MAX);
            body.arguments.push(reg);
        }
        if returned.is_none() {
            body.context.set(body.arguments.first().copied());
        }
        let entry = body.block();
        body.begin(entry);
        body
    }

    /// Keeps the first error.
    #[track_caller]
    pub(super) fn fail(&self, kind: BuildErrorKind) {
        self.fail_at(kind, Location::caller());
    }

    pub(super) fn fail_at(&self, kind: BuildErrorKind, at: At) {
        self.session.borrow_mut().error.get_or_insert(BuildError {
            kind,
            line: at.into(),
        });
    }

    /// The context, or an error if the function hasn't got it.
    #[track_caller]
    pub(super) fn context(&self) -> Reg {
        match self.context.get() {
            Some(context) => context,
            None => {
                self.fail(BuildErrorKind::NoContext);
                self.fresh(true, u64::MAX)
            }
        }
    }

    pub(super) fn fresh(&self, pointer: bool, max: u64) -> Reg {
        let regs = &mut self.state.borrow_mut().regs;
        regs.push(RegInfo {
            pointer,
            variable: false,
            max,
        });
        Reg::try_from(regs.len() - 1).unwrap_or(Reg::MAX)
    }

    /// A register that may be assigned again.
    pub(super) fn fresh_variable(&self, pointer: bool, max: u64) -> Reg {
        let reg = self.fresh(pointer, max);
        self.state.borrow_mut().regs[reg as usize].variable = true;
        reg
    }

    /// No value above this.
    pub(super) fn max(&self, operand: Operand) -> u64 {
        match operand {
            Operand::Const(value) => value,
            Operand::Reg(reg) => self.state.borrow().regs[reg as usize].max,
        }
    }

    pub(super) fn origin(&self, operand: Operand) -> Option<Origin> {
        match operand {
            Operand::Const(_) => None,
            Operand::Reg(reg) => self.state.borrow().origins.get(&reg).copied(),
        }
    }

    /// Whether an operand keeps its value for good, so that it may stand in for a copy of itself.
    pub(super) fn is_fixed(&self, operand: Operand) -> bool {
        match operand {
            Operand::Const(_) => true,
            Operand::Reg(reg) => !self.state.borrow().regs[reg as usize].variable,
        }
    }

    pub(super) fn block(&self) -> BlockId {
        let state = &mut *self.state.borrow_mut();
        state.blocks.push(Block {
            ops: Vec::new(),
            end: None,
            depth: state.depth,
            cold: state.cold > 0,
        });
        state.blocks.len() - 1
    }

    /// Goes on writing in `block`.
    pub(super) fn begin(&self, block: BlockId) {
        let state = &mut *self.state.borrow_mut();
        debug_assert!(state.current.is_none(), "a block was begun inside another");
        state.order.push(block);
        state.current = Some(block);
    }

    /// Puts what `f` writes down to the line `at`: closures have lines of their own.
    pub(super) fn on_line<R>(&self, at: At, f: impl FnOnce() -> R) -> R {
        let before = self.line.replace(Some(at));
        let result = f();
        self.line.set(before);
        result
    }

    /// Writes `f` as code that runs rarely.
    pub(super) fn coldly<R>(&self, f: impl FnOnce() -> R) -> R {
        self.state.borrow_mut().cold += 1;
        let result = f();
        self.state.borrow_mut().cold -= 1;
        result
    }

    /// Writes `f` as the body of a loop.
    pub(super) fn in_loop<R>(&self, f: impl FnOnce() -> R) -> R {
        self.state.borrow_mut().depth += 1;
        let result = f();
        self.state.borrow_mut().depth -= 1;
        result
    }

    /// Writes `f` as code that may be skipped or run again: what is proven in it holds in it only.
    pub(super) fn scoped<R>(&self, f: impl FnOnce() -> R) -> R {
        let before = self.state.borrow().proven.len();
        let result = f();
        self.state.borrow_mut().proven.truncate(before);
        result
    }

    /// Remembers that `bytes` from `start` lie before `end`, from here to the end of the scope.
    pub(super) fn set_proven(&self, start: Reg, end: Reg, bytes: u64) {
        let proven = Proven { start, end, bytes };
        self.state.borrow_mut().proven.push(proven);
    }

    /// Whether a check for so much has been passed wherever this code is reached.
    pub(super) fn is_proven(&self, start: Reg, end: Reg, bytes: u64) -> bool {
        let state = self.state.borrow();
        let mut proven = state.proven.iter();
        proven.any(|known| (known.start, known.end) == (start, end) && known.bytes >= bytes)
    }

    /// The block being written; code after a terminator goes to one that nothing reaches, and is dropped later.
    fn current(state: &mut State) -> BlockId {
        match state.current {
            Some(block) => block,
            None => {
                state.blocks.push(Block {
                    ops: Vec::new(),
                    end: None,
                    depth: state.depth,
                    cold: true,
                });
                let block = state.blocks.len() - 1;
                state.order.push(block);
                state.current = Some(block);
                block
            }
        }
    }

    #[track_caller]
    pub(super) fn emit(&self, op: Op) {
        let at = self.line.get().unwrap_or(Location::caller());
        let state = &mut *self.state.borrow_mut();
        let block = Body::current(state);
        state.blocks[block].ops.push((op, at));
    }

    #[track_caller]
    pub(super) fn end(&self, terminator: Terminator) {
        let at = self.line.get().unwrap_or(Location::caller());
        let state = &mut *self.state.borrow_mut();
        let block = Body::current(state);
        state.blocks[block].end = Some((terminator, at));
        state.current = None;
    }

    /// Whether the code being written can be left at its end: nothing has ended it yet.
    pub(super) fn falls_through(&self) -> bool {
        self.state.borrow().current.is_some()
    }

    #[track_caller]
    pub(super) fn jump(&self, to: BlockId) {
        self.end(Terminator::Jump(to));
    }

    #[track_caller]
    pub(super) fn copy(&self, dst: Reg, src: Operand) {
        self.emit(Op::Copy { dst, src });
    }

    /// `base + offset` as a pointer in a register of its own.
    #[track_caller]
    pub(super) fn address(&self, base: Base, offset: i32) -> Reg {
        let dst = self.fresh(true, u64::MAX);
        self.emit(Op::Address { dst, base, offset });
        dst
    }

    #[track_caller]
    pub(super) fn load(&self, size: Size, base: Base, offset: i32) -> Reg {
        let (base, offset) = self.reachable(base, offset);
        let max = if size == Size::DW {
            u64::MAX
        } else {
            (1 << (8 * u32::from(size.bytes()))) - 1
        };
        let dst = self.fresh(false, max);
        self.emit(Op::Load {
            size,
            dst,
            base,
            offset,
        });
        dst
    }

    #[track_caller]
    pub(super) fn store(&self, size: Size, base: Base, offset: i32, src: Operand) {
        let (base, offset) = self.reachable(base, offset);
        self.emit(Op::Store {
            size,
            base,
            offset,
            src,
        });
    }

    /// An address whose offset fits an instruction.
    #[track_caller]
    pub(super) fn reachable(&self, base: Base, offset: i32) -> (Base, i32) {
        if i16::try_from(offset).is_ok() {
            (base, offset)
        } else {
            (Base::Reg(self.address(base, offset)), 0)
        }
    }

    /// Calls a helper; its result, if wanted, has no bound.
    #[track_caller]
    pub(super) fn helper(&self, number: u32, args: Vec<Arg>) -> Reg {
        self.check_helper(number, args.len());
        let dst = self.fresh(false, u64::MAX);
        self.emit(Op::Call {
            callee: Callee::Helper(number),
            args,
            dst: Some(dst),
        });
        dst
    }

    /// Whether the program may call it, as far as that is known.
    #[track_caller]
    fn check_helper(&self, number: u32, arguments: usize) {
        if arguments > 5 {
            self.fail(BuildErrorKind::Arguments { count: arguments });
        }
        let (kind, helper) = (self.session.borrow().kind, helper::by_number(number));
        let (Some(kind), Some(helper)) = (kind, helper) else {
            return;
        };
        let hook = Hook::of(kind);
        let name = helper.name;
        if !helper.is_for(hook) {
            self.fail(BuildErrorKind::HelperOfAnotherHook { number, name });
        } else if self.session.borrow().target.has_helper(hook, number) == Some(false) {
            let since = helper.since;
            self.fail(BuildErrorKind::NoHelper {
                number,
                name,
                since,
            });
        }
    }

    /// Calls a helper that returns a pointer or null.
    #[track_caller]
    pub(super) fn pointer_helper(&self, number: u32, args: Vec<Arg>) -> Reg {
        let dst = self.helper(number, args);
        self.state.borrow_mut().regs[dst as usize].pointer = true;
        dst
    }

    #[track_caller]
    pub(super) fn buffer(&self, bytes: u32) -> usize {
        let buffers = &mut self.state.borrow_mut().buffers;
        buffers.push((bytes, Location::caller()));
        buffers.len() - 1
    }

    /// The buffer for look-up keys, or for values, of this size.
    #[track_caller]
    pub(super) fn key_buffer(&self, bytes: u32, is_value: bool) -> usize {
        let kind = (bytes, is_value);
        if let Some(&buffer) = self.state.borrow().key_buffers.get(&kind) {
            return buffer;
        }
        let buffer = self.buffer(bytes);
        self.state.borrow_mut().key_buffers.insert(kind, buffer);
        buffer
    }

    /// A global variable: the number of its section's map, and its place there. The same one if it is declared already.
    #[track_caller]
    pub(super) fn global(
        &self,
        section: &str,
        name: &str,
        bytes: &[u8],
        align: u32,
    ) -> (usize, u32) {
        if !is_identifier(name) {
            self.fail(BuildErrorKind::Name {
                name: name.to_owned(),
            });
        }
        let number = {
            let maps = &mut self.session.borrow_mut().maps;
            match maps.iter().position(|map| map.name == section) {
                Some(number) => number,
                None => {
                    maps.push(MapDef {
                        name: section.to_owned(),
                        map_type: MapType::Array,
                        key_size: 4,
                        value_size: 0,
                        max_entries: 1,
                        flags: if section == RODATA { RDONLY_PROG } else { 0 },
                        contents: Contents::Globals(Vec::new()),
                    });
                    maps.len() - 1
                }
            }
        };
        let mut conflict = false;
        let place = {
            let map = &mut self.session.borrow_mut().maps[number];
            let Contents::Globals(globals) = &mut map.contents else {
                // A map can't have a section's name, and that error is kept already.
                return (number, 0);
            };
            match globals.iter().find(|global| global.name == name) {
                Some(global) => {
                    conflict = global.bytes != bytes;
                    global.offset
                }
                None => {
                    let offset = map.value_size.next_multiple_of(align.max(1));
                    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                    map.value_size = offset.saturating_add(len);
                    globals.push(Global {
                        name: name.to_owned(),
                        offset,
                        bytes: bytes.to_vec(),
                    });
                    offset
                }
            }
        };
        if conflict {
            self.fail(BuildErrorKind::NameConflict {
                name: name.to_owned(),
            });
        }
        (number, place)
    }

    /// Refuses what the target lacks and lowering can't replace.
    #[track_caller]
    pub(super) fn demand(&self, feature: crate::target::Feature) {
        if !self.session.borrow().target.has(feature) {
            self.fail(BuildErrorKind::Target { feature });
        }
    }

    /// The number of a map in the program; declares it at its first use.
    #[track_caller]
    pub(super) fn map(&self, def: MapDef) -> usize {
        if !is_name(&def.name) {
            self.fail(BuildErrorKind::Name {
                name: def.name.clone(),
            });
        }
        let known = self
            .session
            .borrow()
            .maps
            .iter()
            .position(|map| map.name == def.name);
        match known {
            Some(number) => {
                if self.session.borrow().maps[number] != def {
                    self.fail(BuildErrorKind::NameConflict { name: def.name });
                }
                number
            }
            None => {
                let maps = &mut self.session.borrow_mut().maps;
                maps.push(def);
                maps.len() - 1
            }
        }
    }
}

/// Whether an object file and the kernel take it as a name.
pub(super) fn is_name(name: &str) -> bool {
    name.len() <= 15 && is_identifier(name)
}

/// Whether it can be a symbol.
fn is_identifier(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.as_bytes()[0].is_ascii_digit()
}
