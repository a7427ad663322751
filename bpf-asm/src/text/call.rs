//! Calls: of helpers, of functions of the text, of kernel functions, and by register.

use super::TextError;
use super::cursor::Cursor;
use super::line::Statement;
use super::operand::{JumpTarget, immediate, jump_target, register, unsigned};
use crate::insn::{Insn, Width};

/// What follows `call`, in either way of writing.
pub(super) fn parse(cursor: &mut Cursor<'_>) -> Result<Statement, TextError> {
    let local = |target: JumpTarget| Statement::to(Insn::CallLocal { offset: 0 }, target);
    let start = *cursor;
    let word = cursor.word();
    let then_number = cursor.rest().starts_with(|c: char| c.is_ascii_digit());
    match word {
        // `call 5`, `call #5`
        "" if start.rest().starts_with(['+', '-']) => jump_target(cursor).map(local),
        "" if start.rest().starts_with('%') => {
            let target = register(cursor, Width::W64)?;
            Ok(Statement::new(Insn::CallReg { target }))
        }
        "" => {
            cursor.eat("#");
            helper(cursor)
        }
        "pc" => {
            *cursor = start;
            jump_target(cursor).map(local)
        }
        "local" if !cursor.at_end() => jump_target(cursor).map(local),
        "helper" if then_number => helper(cursor),
        "helper" if cursor.rest().starts_with('%') => {
            let target = register(cursor, Width::W64)?;
            Ok(Statement::new(Insn::CallReg { target }))
        }
        "runtime" if then_number => {
            let btf_id = immediate(cursor, "a BTF id")?;
            Ok(Statement::new(Insn::CallKfunc {
                btf_id,
                btf_fd_index: 0,
            }))
        }
        "kernel" if cursor.eat("-function#") => {
            let btf_id = immediate(cursor, "a BTF id")?;
            let index = *cursor;
            let btf_fd_index = match cursor.eat("@") {
                true => immediate(cursor, "a place among the descriptors")?,
                false => 0,
            };
            let Ok(btf_fd_index) = i16::try_from(btf_fd_index) else {
                return index.error("a place among the descriptors has 16 bits");
            };
            Ok(Statement::new(Insn::CallKfunc {
                btf_id,
                btf_fd_index,
            }))
        }
        name if cursor.eat("#") => {
            let statement = helper(cursor)?;
            if let Insn::Call { helper } = statement.insn {
                let known = Insn::helper_name(helper).map(|known| format!("bpf_{known}"));
                let known = known.as_deref().unwrap_or("unknown");
                if name != known {
                    return start.error(format!("helper {helper} is {known}, not {name}"));
                }
            }
            Ok(statement)
        }
        name => Ok(match helper_number(name) {
            Some(helper) => Statement::new(Insn::Call { helper }),
            None => local(JumpTarget::Label {
                name: name.to_owned(),
                column: start.column(),
            }),
        }),
    }
}

fn helper(cursor: &mut Cursor<'_>) -> Result<Statement, TextError> {
    let helper = unsigned(cursor, "a helper's name or number, or a function")?;
    Ok(Statement::new(Insn::Call { helper }))
}

/// The number of the helper `bpf_...`.
fn helper_number(name: &str) -> Option<u32> {
    let name = name.strip_prefix("bpf_")?;
    (0..)
        .map_while(|number| Some((number, Insn::helper_name(number)?)))
        .find_map(|(number, known)| (known == name).then_some(number))
}
