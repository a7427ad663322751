//! The public conformance suite's way of writing: `mov32 %r0, 5`, `jne %r0, %r1, exit`, `lock fetch add [%r1+8], %r2`.

use super::TextError;
use super::cursor::Cursor;
use super::line::Statement;
use super::operand::{immediate, jump_target, place, register, source, wide};
use crate::insn::{AluOp, AtomicOp, EndianKind, Imm64, Insn, JumpOp, Reg, Size, Width};

/// Arithmetic by its mnemonic; with `32` behind it, or `64` or nothing.
const ALU: [(&str, AluOp); 14] = [
    ("add", AluOp::Add),
    ("sub", AluOp::Sub),
    ("mul", AluOp::Mul),
    ("div", AluOp::Div),
    ("sdiv", AluOp::SDiv),
    ("or", AluOp::Or),
    ("and", AluOp::And),
    ("lsh", AluOp::Lsh),
    ("rsh", AluOp::Rsh),
    ("mod", AluOp::Mod),
    ("smod", AluOp::SMod),
    ("xor", AluOp::Xor),
    ("mov", AluOp::Mov),
    ("arsh", AluOp::Arsh),
];

/// Conditional jumps by their mnemonic; with `32` behind it, or nothing.
const JUMP: [(&str, JumpOp); 11] = [
    ("jeq", JumpOp::Eq),
    ("jne", JumpOp::Ne),
    ("jgt", JumpOp::Gt),
    ("jge", JumpOp::Ge),
    ("jlt", JumpOp::Lt),
    ("jle", JumpOp::Le),
    ("jset", JumpOp::Set),
    ("jsgt", JumpOp::SGt),
    ("jsge", JumpOp::SGe),
    ("jslt", JumpOp::SLt),
    ("jsle", JumpOp::SLe),
];

/// Byte-order conversions by what is before the bits.
const ENDIAN: [(&str, EndianKind); 4] = [
    ("le", EndianKind::ToLe),
    ("be", EndianKind::ToBe),
    ("swap", EndianKind::Swap),
    ("bswap", EndianKind::Swap),
];

/// Sign-extending moves: from how many bits, to what width.
const MOVSX: [(&str, u8, Width); 5] = [
    ("movsx832", 8, Width::W32),
    ("movsx1632", 16, Width::W32),
    ("movsx864", 8, Width::W64),
    ("movsx1664", 16, Width::W64),
    ("movsx3264", 32, Width::W64),
];

const SIZES: [(&str, Size); 4] = [
    ("b", Size::B),
    ("h", Size::H),
    ("w", Size::W),
    ("dw", Size::DW),
];

/// Atomic operations behind `lock`; with `32` behind it, or nothing: without `fetch` before it, and with.
const ATOMIC: [(&str, Option<AtomicOp>, AtomicOp); 6] = [
    ("add", Some(AtomicOp::Add), AtomicOp::FetchAdd),
    ("and", Some(AtomicOp::And), AtomicOp::FetchAnd),
    ("or", Some(AtomicOp::Or), AtomicOp::FetchOr),
    ("xor", Some(AtomicOp::Xor), AtomicOp::FetchXor),
    ("xchg", None, AtomicOp::Exchange),
    ("cmpxchg", None, AtomicOp::CompareExchange),
];

fn find<T: Copy>(table: &[(&str, T)], word: &str) -> Option<T> {
    table.iter().find(|row| row.0 == word).map(|row| row.1)
}

/// `add32` is `add` of 32 bits; `add64` and `add` are of 64.
fn sized<T: Copy>(table: &[(&str, T)], word: &str) -> Option<(Width, T)> {
    let (width, name) = match (word.strip_suffix("32"), word.strip_suffix("64")) {
        (Some(name), _) => (Width::W32, name),
        (_, Some(name)) => (Width::W64, name),
        _ => (Width::W64, word),
    };
    find(table, name).map(|op| (width, op))
}

pub(super) fn parse(cursor: &mut Cursor<'_>) -> Result<Statement, TextError> {
    let start = *cursor;
    let word = cursor.word();
    if word.is_empty() {
        return start.expected("an instruction");
    }
    match word {
        "lock" => return lock(cursor).map(Statement::new),
        "lddw" => return load_immediate(cursor).map(Statement::new),
        "ja" | "ja32" => {
            let insn = match word {
                "ja" => Insn::Goto { offset: 0 },
                _ => Insn::GotoLong { offset: 0 },
            };
            return Ok(Statement::to(insn, jump_target(cursor)?));
        }
        _ => {}
    }
    if let Some((_, bits, width)) = MOVSX.iter().copied().find(|row| row.0 == word) {
        let (dst, src) = two(cursor, |cursor| register(cursor, Width::W64))?;
        return Ok(Statement::new(Insn::MovSx {
            width,
            bits,
            dst,
            src,
        }));
    }
    if let Some((width, op)) = sized(&ALU, word) {
        let (dst, src) = two(cursor, |cursor| source(cursor, Width::W64))?;
        return Ok(Statement::new(Insn::Alu {
            width,
            op,
            dst,
            src,
        }));
    }
    if let Some((width, ())) = sized(&[("neg", ())], word) {
        let dst = register(cursor, Width::W64)?;
        return Ok(Statement::new(Insn::Neg { width, dst }));
    }
    if let Some((width, op)) = sized(&JUMP, word) {
        return conditional(cursor, width, op);
    }
    if let Some(insn) = byte_order(cursor, word)? {
        return Ok(Statement::new(insn));
    }
    if let Some(insn) = memory(cursor, word)? {
        return Ok(Statement::new(insn));
    }
    start.error(format!(
        "`{word}` is no instruction: they are written as in verifier logs (`r0 = 1`, `if r1 > 5 goto end`, `exit`), or as in \
         the conformance suite (`mov %r0, 1`, `jgt %r1, 5, end`, `exit`)"
    ))
}

/// `dst, src`
fn two<'t, T>(
    cursor: &mut Cursor<'t>,
    src: impl FnOnce(&mut Cursor<'t>) -> Result<T, TextError>,
) -> Result<(Reg, T), TextError> {
    let dst = register(cursor, Width::W64)?;
    cursor.expect(",")?;
    Ok((dst, src(cursor)?))
}

fn conditional(cursor: &mut Cursor<'_>, width: Width, op: JumpOp) -> Result<Statement, TextError> {
    let (dst, src) = two(cursor, |cursor| source(cursor, Width::W64))?;
    cursor.expect(",")?;
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

fn load_immediate(cursor: &mut Cursor<'_>) -> Result<Insn, TextError> {
    let (dst, value) = two(cursor, |cursor| {
        let start = *cursor;
        match cursor.number()? {
            None => start.expected("a number of 64 bits"),
            Some(number) => match wide(number) {
                None => start.error("this number does not fit into 64 bits"),
                Some(value) => Ok(value),
            },
        }
    })?;
    let value = Imm64::Value(value);
    Ok(Insn::LoadImm64 { dst, value })
}

/// `be16 %r0`
fn byte_order(cursor: &mut Cursor<'_>, word: &str) -> Result<Option<Insn>, TextError> {
    let Some((name, bits)) = word
        .len()
        .checked_sub(2)
        .and_then(|at| word.split_at_checked(at))
    else {
        return Ok(None);
    };
    let bits = match bits {
        "16" => 16,
        "32" => 32,
        "64" => 64,
        _ => return Ok(None),
    };
    let Some(kind) = find(&ENDIAN, name) else {
        return Ok(None);
    };
    let dst = register(cursor, Width::W64)?;
    Ok(Some(Insn::Endian { kind, bits, dst }))
}

/// `ldxw`, `ldxsw`, `stw`, `stxw`
fn memory(cursor: &mut Cursor<'_>, word: &str) -> Result<Option<Insn>, TextError> {
    let size = |prefix| find(&SIZES, word.strip_prefix(prefix)?);
    let bracketed = |cursor: &mut Cursor<'_>| place(cursor, "[", "]");
    let signed = size("ldxs");
    if let Some(size) = signed.or_else(|| size("ldx")) {
        let (dst, (base, offset)) = two(cursor, bracketed)?;
        return Ok(Some(Insn::Load {
            size,
            signed: signed.is_some(),
            dst,
            base,
            offset,
        }));
    }
    let from_register = size("stx");
    let Some(size) = from_register.or_else(|| size("st")) else {
        return Ok(None);
    };
    let (base, offset) = bracketed(cursor)?;
    cursor.expect(",")?;
    let src = match from_register {
        Some(_) => register(cursor, Width::W64)?.into(),
        None => immediate(cursor, "a number")?.into(),
    };
    Ok(Some(Insn::Store {
        size,
        base,
        offset,
        src,
    }))
}

/// `fetch add [%r1+8], %r2`
fn lock(cursor: &mut Cursor<'_>) -> Result<Insn, TextError> {
    let fetches = cursor.eat_word("fetch");
    let start = *cursor;
    let word = cursor.word();
    let rows = ATOMIC.map(|(name, plain, fetching)| (name, (plain, fetching)));
    let Some((width, (plain, fetching))) = sized(&rows, word) else {
        return start.expected("add, and, or, xor, xchg or cmpxchg, with 32 behind it for 4 bytes");
    };
    let op = match plain {
        Some(plain) if !fetches => plain,
        _ => fetching,
    };
    let size = match width {
        Width::W32 => Size::W,
        Width::W64 => Size::DW,
    };
    let (base, offset) = place(cursor, "[", "]")?;
    cursor.expect(",")?;
    let src = register(cursor, Width::W64)?;
    Ok(Insn::Atomic {
        size,
        op,
        base,
        offset,
        src,
    })
}
