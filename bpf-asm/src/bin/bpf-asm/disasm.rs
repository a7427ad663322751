//! `bpf-asm disasm`: an object or hexadecimal code to a listing that can be assembled again.

use argh::FromArgs;
use bpf_asm::disasm::listing;
use bpf_asm::insn::{Imm64, Insn};
use bpf_asm::program::{BSS, DATA, Function, RODATA, Relocation, Target};
use object::read::elf::ElfFile64;
use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionKind, SymbolKind};

use crate::{Failure, hex, maps, read};

/// Print the maps and instructions of an object file, or the instructions of hexadecimal code, as text that can be assembled again.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "disasm",
    error_code(1, "the object or the code can't be read")
)]
pub(crate) struct Disasm {
    /// the object file, or - for standard input
    #[argh(positional)]
    file: Option<String>,

    /// code as hexadecimal digits, or - for standard input
    #[argh(option)]
    hex: Option<String>,
}

pub(crate) fn run(arguments: &Disasm) -> Result<Vec<u8>, Failure> {
    let text = match (&arguments.file, &arguments.hex) {
        (Some(file), None) => {
            let bytes = read(file)?;
            functions(&bytes).map_err(|error| Failure::Error(format!("{file}: {error}")))?
        }
        (None, Some(digits)) => {
            let digits = match digits.as_str() {
                "-" => crate::read_text("-")?,
                digits => digits.to_owned(),
            };
            let insns = hex::code(&digits).map_err(Failure::Error)?;
            listing(&function(String::new(), insns)).to_string()
        }
        _ => {
            return Err(Failure::Usage(
                "give an object file, or code behind --hex".into(),
            ));
        }
    };
    Ok(text.into_bytes())
}

fn function(name: String, insns: Vec<Insn>) -> Function {
    Function {
        name,
        arguments: 1,
        insns,
        lines: Vec::new(),
        relocations: Vec::new(),
    }
}

/// The maps of an object, then every function by its name.
fn functions(bytes: &[u8]) -> Result<String, String> {
    const EM_BPF: u16 = 247;
    let said = |error: object::Error| error.to_string();
    let file = ElfFile64::<object::Endianness>::parse(bytes).map_err(said)?;
    let machine = file.elf_header().e_machine.get(file.endian());
    if machine != EM_BPF || !file.is_little_endian() {
        return Err("this is no object for little-endian eBPF".into());
    }
    let mut text = maps::text(&file)?;
    let mut any = false;
    for section in file.sections().filter(|s| s.kind() == SectionKind::Text) {
        let name = section.name().map_err(said)?;
        let code = section.data().map_err(said)?;
        let mut symbols: Vec<_> = file
            .symbols()
            .filter(|s| s.kind() == SymbolKind::Text && s.section_index() == Some(section.index()))
            .collect();
        symbols.sort_by_key(|symbol| symbol.address());
        for symbol in &symbols {
            let start = usize::try_from(symbol.address()).unwrap_or(usize::MAX);
            let size = usize::try_from(symbol.size()).unwrap_or(usize::MAX);
            let code = start.checked_add(size).and_then(|end| code.get(start..end));
            let symbol = symbol.name().map_err(said)?;
            let Some(code) = code else {
                return Err(format!("section {name}: `{symbol}` ends outside of it"));
            };
            let (slots, rest) = code.as_chunks::<8>();
            if !rest.is_empty() {
                return Err(format!(
                    "section {name}: `{symbol}` ends in half an instruction"
                ));
            }
            let insns = Insn::decode_all(slots).map_err(|(slot, error)| {
                format!("section {name}, `{symbol}`, slot {slot}: {error}")
            })?;
            let mut function = function(symbol.to_owned(), insns);
            relocate(&file, &section, start, &mut function).map_err(said)?;
            any = true;
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&format!("{symbol}:\n{}", listing(&function)));
        }
    }
    if !any {
        return Err("there is no function in it".into());
    }
    Ok(text)
}

/// Notes what the relocations of the section say about the function's instructions.
fn relocate<'d>(
    file: &ElfFile64<'d>,
    section: &impl ObjectSection<'d>,
    start: usize,
    function: &mut Function,
) -> object::Result<()> {
    let mut offsets = Vec::with_capacity(function.insns.len());
    let mut offset = start;
    for insn in &function.insns {
        offsets.push(offset);
        offset += insn.slots() * 8;
    }
    let mut found = Vec::new();
    for (offset, relocation) in section.relocations() {
        let at = usize::try_from(offset).ok();
        let at = at.and_then(|offset| offsets.binary_search(&offset).ok());
        let (Some(at), RelocationTarget::Symbol(index)) = (at, relocation.target()) else {
            continue;
        };
        let symbol = file.symbol_by_index(index)?;
        let target = match function.insns[at] {
            // A variable, by its section.
            Insn::LoadImm64 {
                dst,
                value: Imm64::Value(distance),
            } if variables_of(file, &symbol)?.is_some() => {
                let offset = symbol.address().wrapping_add(distance);
                let offset = u32::try_from(offset).unwrap_or(u32::MAX);
                function.insns[at] = Insn::LoadImm64 {
                    dst,
                    value: Imm64::MapValue { fd: 0, offset },
                };
                Target::Map(variables_of(file, &symbol)?.unwrap_or_default())
            }
            Insn::LoadImm64 {
                dst,
                value: Imm64::Function { offset },
            } => {
                let address = symbol.address().wrapping_add(offset as u64);
                let Some(callee) = function_at(file, &symbol, address) else {
                    continue;
                };
                function.insns[at] = Insn::LoadImm64 {
                    dst,
                    value: Imm64::Function { offset: -1 },
                };
                Target::Subprogram(callee)
            }
            Insn::LoadImm64 { .. } => Target::Map(symbol.name()?.to_owned()),
            // clang refers to a function as a place in its section.
            Insn::CallLocal { offset } if symbol.kind() == SymbolKind::Section => {
                let address = (i64::from(offset) + 1) * 8;
                let address = u64::try_from(address).unwrap_or(u64::MAX);
                let Some(callee) = function_at(file, &symbol, address) else {
                    continue;
                };
                function.insns[at] = Insn::CallLocal { offset: -1 };
                Target::Subprogram(callee)
            }
            Insn::CallLocal { .. } => Target::Subprogram(symbol.name()?.to_owned()),
            _ => continue,
        };
        found.push(Relocation { at, target });
    }
    found.sort_by_key(|relocation| relocation.at);
    function.relocations = found;
    Ok(())
}

/// The section of variables that a symbol is or lies in.
fn variables_of<'d>(
    file: &ElfFile64<'d>,
    symbol: &impl ObjectSymbol<'d>,
) -> object::Result<Option<String>> {
    let Some(index) = symbol.section_index() else {
        return Ok(None);
    };
    let section = file.section_by_index(index)?;
    let name = section.name()?;
    Ok([RODATA, DATA, BSS].contains(&name).then(|| name.to_owned()))
}

/// The name of the function that begins at this address, in the symbol's section.
fn function_at<'d>(
    file: &ElfFile64<'d>,
    symbol: &impl ObjectSymbol<'d>,
    address: u64,
) -> Option<String> {
    let is_it = |s: &object::read::elf::ElfSymbol64<'d, '_>| {
        s.kind() == SymbolKind::Text
            && s.section_index() == symbol.section_index()
            && s.address() == address
    };
    let found = file.symbols().find(is_it)?;
    Some(found.name().ok()?.to_owned())
}
