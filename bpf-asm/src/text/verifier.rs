//! The verifier's way of writing: `r0 = *(u32 *)(r1 +4)`, `if r1 s> 0x5 goto pc+3`, `lock *(u64 *)(r1 +0) += r2`.

use super::cursor::Cursor;
use super::line::Statement;
use super::operand::{
    any_register, cast, immediate, jump_target, peek_register, place, register, source,
    unsigned_cast, unsigned16, wide,
};
use super::{TextError, call};
use crate::insn::{AluOp, AtomicOp, EndianKind, Imm64, Insn, JumpOp, Reg, Size, Source, Width};
use crate::program::Target;

/// Opcode of a 64-bit immediate load, which a listing may have before it.
const LOAD_IMM64: u8 = 0x18;
/// Opcode of a 64-bit move of a number.
const MOVE: u8 = 0xb7;

/// The instruction that is next; None where the line does not begin as the verifier writes it.
pub(super) fn parse(
    cursor: &mut Cursor<'_>,
    opcode: Option<u8>,
) -> Result<Option<Statement>, TextError> {
    if peek_register(cursor) {
        return assignment(cursor, opcode).map(Some);
    }
    if cursor.rest().starts_with('*') {
        return store(cursor).map(Some);
    }
    let start = *cursor;
    let statement = match cursor.word() {
        "if" => conditional(cursor)?,
        "goto" => Statement::to(Insn::Goto { offset: 0 }, jump_target(cursor)?),
        "gotol" => Statement::to(Insn::GotoLong { offset: 0 }, jump_target(cursor)?),
        "may_goto" => Statement::to(Insn::MayGoto { offset: 0 }, jump_target(cursor)?),
        "callx" => Statement::new(Insn::CallReg {
            target: register(cursor, Width::W64)?,
        }),
        "gotox" => Statement::new(Insn::GotoReg {
            target: register(cursor, Width::W64)?,
        }),
        "call" => call::parse(cursor)?,
        "exit" => Statement::new(Insn::Exit),
        "store_release" => Statement::new(store_release(cursor)?),
        "lock" if cursor.rest().starts_with('*') => Statement::new(lock(cursor)?),
        _ => {
            *cursor = start;
            return Ok(None);
        }
    };
    Ok(Some(statement))
}

/// `r1 ...= ...`
fn assignment(cursor: &mut Cursor<'_>, opcode: Option<u8>) -> Result<Statement, TextError> {
    let start = *cursor;
    let (width, dst) = any_register(cursor)?;
    if let Some(op) = longest(AluOp::ALL, AluOp::sign, cursor) {
        if op == AluOp::Mov {
            return value(cursor, start, width, dst, opcode);
        }
        let src = source(cursor, width)?;
        return Ok(Statement::new(Insn::Alu {
            width,
            op,
            dst,
            src,
        }));
    }
    cursor.expected("an assignment such as =, += or s>>=")
}

/// Takes the longest sign among `all` that is next.
fn longest<T: Copy, const N: usize>(
    all: [T; N],
    sign: impl Fn(T) -> &'static str,
    cursor: &mut Cursor<'_>,
) -> Option<T> {
    let next = all
        .into_iter()
        .filter(|op| cursor.rest().starts_with(sign(*op)));
    let op = next.max_by_key(|op| sign(*op).len())?;
    cursor.eat(sign(op)).then_some(op)
}

/// What follows `r1 =`.
fn value(
    cursor: &mut Cursor<'_>,
    start: Cursor<'_>,
    width: Width,
    dst: Reg,
    opcode: Option<u8>,
) -> Result<Statement, TextError> {
    let wide_only = |insn: Insn| match width {
        Width::W64 => Ok(Statement::new(insn)),
        Width::W32 => start.expected(&format!("r{}, since this writes 64 bits", dst.number())),
    };
    if peek_register(cursor) {
        let src = register(cursor, width)?.into();
        let op = AluOp::Mov;
        return Ok(Statement::new(Insn::Alu {
            width,
            op,
            dst,
            src,
        }));
    }
    let here = *cursor;
    if cursor.eat("-") && peek_register(cursor) {
        return same(cursor, width, dst).map(|()| Statement::new(Insn::Neg { width, dst }));
    }
    *cursor = here;
    if cursor.rest().starts_with('(') {
        let bits = sign_extension(cursor)?;
        let src = register(cursor, width)?;
        return Ok(Statement::new(Insn::MovSx {
            width,
            bits,
            dst,
            src,
        }));
    }
    if cursor.eat("*") {
        return load(cursor, start, dst).and_then(wide_only);
    }
    match cursor.peek_word() {
        "" => number(cursor, width, dst, opcode),
        "map" | "btf" | "subprog" => {
            let statement = address(cursor, dst)?;
            wide_only(statement.insn).map(|_| statement)
        }
        "addr_space_cast" => address_space_cast(cursor, dst).and_then(wide_only),
        word if word.starts_with("atomic") || word == "load_acquire" => {
            fetch(cursor, start, dst).and_then(wide_only)
        }
        word => match byte_order(word) {
            Some((kind, bits)) => {
                cursor.eat_word(word);
                same(cursor, Width::W64, dst)?;
                wide_only(Insn::Endian { kind, bits, dst })
            }
            None => cursor.expected("a value: a register, a number, *(u32 *)(r1 +0), be16 r1, ..."),
        },
    }
}

/// The register that is written has to be named again.
fn same(cursor: &mut Cursor<'_>, width: Width, dst: Reg) -> Result<(), TextError> {
    let start = *cursor;
    if register(cursor, width)? == dst {
        return Ok(());
    }
    let letter = if width == Width::W32 { 'w' } else { 'r' };
    start.expected(&format!(
        "{letter}{}, the register that is written: this works in place",
        dst.number()
    ))
}

fn number(
    cursor: &mut Cursor<'_>,
    width: Width,
    dst: Reg,
    opcode: Option<u8>,
) -> Result<Statement, TextError> {
    let start = *cursor;
    let Some(number) = cursor.number()? else {
        return start.expected("a value: a register, a number, *(u32 *)(r1 +0), be16 r1, ...");
    };
    let long = cursor.eat_word("ll");
    let is_load = long || opcode == Some(LOAD_IMM64) || number.hexadecimal && opcode != Some(MOVE);
    if width == Width::W64 && is_load {
        let Some(value) = wide(number) else {
            return start.error("this number does not fit into 64 bits");
        };
        let value = Imm64::Value(value);
        return Ok(Statement::new(Insn::LoadImm64 { dst, value }));
    }
    if long {
        return start.error("`ll` loads 64 bits, and a register named w has 32");
    }
    if !number.hexadecimal && width == Width::W64 && i32::try_from(number.value).is_err() {
        return start.error(
            "a move has 32 bits, sign-extended: -2147483648 to 2147483647; `ll` behind the number loads 64",
        );
    }
    *cursor = start;
    let src = Source::Imm(immediate(cursor, "a number")?);
    let op = AluOp::Mov;
    Ok(Statement::new(Insn::Alu {
        width,
        op,
        dst,
        src,
    }))
}

/// `(s8)`
fn sign_extension(cursor: &mut Cursor<'_>) -> Result<u8, TextError> {
    cursor.expect("(")?;
    let start = *cursor;
    let bits = match cursor.word() {
        "s8" => 8,
        "s16" => 16,
        "s32" => 32,
        _ => return start.expected("s8, s16 or s32"),
    };
    cursor.expect(")")?;
    Ok(bits)
}

/// `(u32 *)(r1 +4)`, or `(u8 *)skb[...]`
fn load(cursor: &mut Cursor<'_>, start: Cursor<'_>, dst: Reg) -> Result<Insn, TextError> {
    let at = *cursor;
    let (signed, size) = cast(cursor)?;
    if !cursor.eat_word("skb") {
        let (base, offset) = place(cursor, "(", ")")?;
        return Ok(Insn::Load {
            size,
            signed,
            dst,
            base,
            offset,
        });
    }
    if signed {
        return at.error("packet loads extend no sign; write u8, u16 or u32");
    }
    if dst != Reg::R0 {
        return start.expected("r0, where packet loads put their result");
    }
    cursor.expect("[")?;
    let index = if peek_register(cursor) {
        let index = register(cursor, Width::W64)?;
        cursor.expect("+")?;
        Some(index)
    } else {
        None
    };
    let offset = immediate(cursor, "an offset into the packet")?;
    cursor.expect("]")?;
    Ok(Insn::LoadPacket {
        size,
        index,
        offset,
    })
}

/// `map[...]`, `btf[id:9]`, `subprog[+4]`
fn address(cursor: &mut Cursor<'_>, dst: Reg) -> Result<Statement, TextError> {
    let load = |value| Statement::new(Insn::LoadImm64 { dst, value });
    let kind = cursor.word();
    cursor.expect("[")?;
    if kind == "subprog" {
        let target = jump_target(cursor)?;
        cursor.expect("]")?;
        let value = Imm64::Function { offset: 0 };
        return Ok(Statement::to(Insn::LoadImm64 { dst, value }, target));
    }
    if kind == "btf" {
        cursor.expect("id")?;
        cursor.expect(":")?;
        let id = immediate(cursor, "a BTF id")?;
        cursor.expect("]")?;
        let btf_fd = match cursor.eat("@") {
            true => immediate(cursor, "a file descriptor")?,
            false => 0,
        };
        return Ok(load(Imm64::BtfId { id, btf_fd }));
    }
    let word = cursor.word();
    if matches!(word, "fd" | "idx") && cursor.eat(":") {
        let number = immediate(cursor, "the map's number")?;
        cursor.expect("]")?;
        if !cursor.eat("[0]") {
            return Ok(load(match word {
                "fd" => Imm64::MapFd(number),
                _ => Imm64::MapIndex(number),
            }));
        }
        cursor.expect("+")?;
        let offset = super::operand::unsigned(cursor, "an offset into the map's value")?;
        return Ok(load(match word {
            "fd" => Imm64::MapValue { fd: number, offset },
            _ => Imm64::MapIndexValue {
                index: number,
                offset,
            },
        }));
    }
    if word.is_empty() {
        return cursor.expected("a map: fd:N, idx:N or its name");
    }
    cursor.expect("]")?;
    let value = if cursor.eat("[0]") {
        cursor.expect("+")?;
        let offset = super::operand::unsigned(cursor, "an offset into the map's value")?;
        Imm64::MapValue { fd: 0, offset }
    } else {
        Imm64::Map
    };
    Ok(Statement {
        relocation: Some(Target::Map(word.to_owned())),
        ..load(value)
    })
}

/// `addr_space_cast(r2, 0, 1)`
fn address_space_cast(cursor: &mut Cursor<'_>, dst: Reg) -> Result<Insn, TextError> {
    cursor.word();
    cursor.expect("(")?;
    let src = register(cursor, Width::W64)?;
    cursor.expect(",")?;
    let to = unsigned16(cursor, "the address space to move to")?;
    cursor.expect(",")?;
    let from = unsigned16(cursor, "the address space to move from")?;
    cursor.expect(")")?;
    Ok(Insn::CastAddressSpace { dst, src, to, from })
}

/// `atomic64_fetch_add((u64 *)(r1 +0), r2)`, `load_acquire((u8 *)(r1 +0))`
fn fetch(cursor: &mut Cursor<'_>, start: Cursor<'_>, dst: Reg) -> Result<Insn, TextError> {
    let named = *cursor;
    let word = cursor.word();
    let (wide, name) = match word.strip_prefix("atomic64_") {
        Some(name) => (Some(true), name),
        None => match word.strip_prefix("atomic_") {
            Some(name) => (Some(false), name),
            None => (None, word),
        },
    };
    let op = AtomicOp::ALL.into_iter().find(|op| op.sign() == name);
    let op = op.filter(|op| match op {
        AtomicOp::LoadAcquire => wide.is_none(),
        AtomicOp::StoreRelease => false,
        _ => wide.is_some(),
    });
    let Some(op) = op else {
        return named.error(format!(
            "`{word}` is no atomic operation; there are atomic_ and atomic64_ with fetch_add, fetch_and, fetch_or, \
             fetch_xor, xchg and cmpxchg, and load_acquire"
        ));
    };
    cursor.expect("(")?;
    let at = *cursor;
    let size = unsigned_cast(cursor)?;
    if wide.is_some_and(|wide| wide != (size == Size::DW)) {
        return at.error("atomic64_ goes with (u64 *), atomic_ with (u32 *)");
    }
    let (base, offset) = place(cursor, "(", ")")?;
    let src = match op {
        AtomicOp::LoadAcquire => dst,
        AtomicOp::CompareExchange => {
            if dst != Reg::R0 {
                return start.expected("r0, where cmpxchg puts the old value");
            }
            cursor.expect(",")?;
            same(cursor, Width::W64, Reg::R0)?;
            cursor.expect(",")?;
            register(cursor, Width::W64)?
        }
        _ => {
            cursor.expect(",")?;
            same(cursor, Width::W64, dst)?;
            dst
        }
    };
    cursor.expect(")")?;
    Ok(Insn::Atomic {
        size,
        op,
        base,
        offset,
        src,
    })
}

/// `store_release((u8 *)(r1 +0), r2)`
fn store_release(cursor: &mut Cursor<'_>) -> Result<Insn, TextError> {
    cursor.expect("(")?;
    let size = unsigned_cast(cursor)?;
    let (base, offset) = place(cursor, "(", ")")?;
    cursor.expect(",")?;
    let src = register(cursor, Width::W64)?;
    cursor.expect(")")?;
    let op = AtomicOp::StoreRelease;
    Ok(Insn::Atomic {
        size,
        op,
        base,
        offset,
        src,
    })
}

/// `*(u64 *)(r1 +0) += r2`
fn lock(cursor: &mut Cursor<'_>) -> Result<Insn, TextError> {
    cursor.expect("*")?;
    let size = unsigned_cast(cursor)?;
    let (base, offset) = place(cursor, "(", ")")?;
    let signed = |op: &AtomicOp| op.sign().ends_with('=') && cursor.rest().starts_with(op.sign());
    let Some(op) = AtomicOp::ALL.into_iter().find(signed) else {
        return cursor.expected("+=, |=, &= or ^=");
    };
    cursor.eat(op.sign());
    let src = register(cursor, Width::W64)?;
    Ok(Insn::Atomic {
        size,
        op,
        base,
        offset,
        src,
    })
}

/// `*(u32 *)(r1 +4) = r2`
fn store(cursor: &mut Cursor<'_>) -> Result<Statement, TextError> {
    cursor.expect("*")?;
    let size = unsigned_cast(cursor)?;
    let (base, offset) = place(cursor, "(", ")")?;
    cursor.expect("=")?;
    let src = source(cursor, Width::W64)?;
    Ok(Statement::new(Insn::Store {
        size,
        base,
        offset,
        src,
    }))
}

/// `r1 s> 0x5 goto pc+3`
fn conditional(cursor: &mut Cursor<'_>) -> Result<Statement, TextError> {
    let (width, dst) = any_register(cursor)?;
    let Some(op) = longest(JumpOp::ALL, JumpOp::sign, cursor) else {
        return cursor.expected("a comparison: ==, !=, >, >=, <, <=, &, s>, s>=, s< or s<=");
    };
    let src = source(cursor, width)?;
    if !cursor.eat_word("goto") {
        return cursor.expected("`goto`");
    }
    let offset = 0;
    let insn = Insn::Jump {
        width,
        op,
        dst,
        src,
        offset,
    };
    Ok(Statement::to(insn, jump_target(cursor)?))
}

/// `be16`, `le64`, `bswap32`
fn byte_order(word: &str) -> Option<(EndianKind, u8)> {
    let kinds = [EndianKind::ToLe, EndianKind::ToBe, EndianKind::Swap];
    kinds.into_iter().find_map(|kind| {
        let bits = match word.strip_prefix(kind.sign())? {
            "16" => 16,
            "32" => 32,
            "64" => 64,
            _ => return None,
        };
        Some((kind, bits))
    })
}
