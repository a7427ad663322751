//! Copies are seen through, and what nobody reads isn't computed.

use std::collections::HashMap;

use super::super::ir::{Op, Operand, Reg};
use super::Code;

pub(super) fn clean(code: &mut Code) {
    // Copies among registers that are assigned once hold everywhere.
    let mut same: HashMap<Reg, Operand> = HashMap::new();
    for block in &code.blocks {
        for (op, _) in &block.ops {
            if let Op::Copy { dst, src } = op
                && !code.regs[*dst as usize].variable
                && match src {
                    Operand::Reg(src) => !code.regs[*src as usize].variable,
                    Operand::Const(_) => true,
                }
            {
                same.insert(*dst, *src);
            }
        }
    }
    let resolve = |mut operand: Operand| {
        while let Operand::Reg(reg) = operand
            && let Some(to) = same.get(&reg)
        {
            operand = *to;
        }
        operand
    };
    for block in &mut code.blocks {
        for (op, _) in &mut block.ops {
            op.each_operand_mut(|operand| *operand = resolve(*operand));
            op.each_use_mut(|reg| {
                if let Operand::Reg(to) = resolve(Operand::Reg(*reg)) {
                    *reg = to;
                }
            });
        }
        block.end.each_operand_mut(|operand| *operand = resolve(*operand));
    }
    for block in &mut code.blocks {
        // Copies of variables hold until the variable is assigned.
        let mut now: HashMap<Reg, Reg> = HashMap::new();
        for (op, _) in &mut block.ops {
            op.each_use_mut(|reg| *reg = now.get(reg).copied().unwrap_or(*reg));
            if let Some(dst) = op.def() {
                now.remove(&dst);
                now.retain(|_, src| *src != dst);
                if let Op::Copy { src: Operand::Reg(src), .. } = op
                    && *src != dst
                {
                    now.insert(dst, *src);
                }
            }
        }
        block.end.each_operand_mut(|operand| {
            if let Operand::Reg(reg) = operand {
                *reg = now.get(reg).copied().unwrap_or(*reg);
            }
        });
    }
    drop_dead(code);
    fuse(code);
    drop_dead(code);
}

/// `t = a op b; v = t` becomes `v = a op b` where nothing else reads `t`.
fn fuse(code: &mut Code) {
    let mut uses: HashMap<Reg, usize> = HashMap::new();
    for block in &code.blocks {
        for (op, _) in &block.ops {
            op.each_use(|reg| *uses.entry(reg).or_default() += 1);
        }
        block.end.each_use(|reg| *uses.entry(reg).or_default() += 1);
    }
    for block in &mut code.blocks {
        let mut at = 1;
        while at < block.ops.len() {
            let fused = match (&block.ops[at - 1].0, &block.ops[at].0) {
                (made, Op::Copy { dst, src: Operand::Reg(src) })
                    if made.def() == Some(*src)
                        && uses.get(src) == Some(&1)
                        && !code.regs[*src as usize].variable
                        && code.regs[*src as usize].pointer == code.regs[*dst as usize].pointer =>
                {
                    Some(*dst)
                }
                _ => None,
            };
            if let Some(to) = fused {
                *block.ops[at - 1].0.def_mut().expect("it defines the copy's source") = to;
                block.ops.remove(at);
            } else {
                at += 1;
            }
        }
    }
}

/// Drops what has no effect and whose result nobody reads, also around loops.
fn drop_dead(code: &mut Code) {
    loop {
        let live = super::liveness::live_out(code);
        let mut dropped = false;
        for (number, block) in code.blocks.iter_mut().enumerate() {
            let mut live = live[number].clone();
            block.end.each_use(|reg| live.insert(reg));
            let mut kept = Vec::with_capacity(block.ops.len());
            for (op, at) in block.ops.drain(..).rev() {
                let dead = !op.has_effect() && op.def().is_none_or(|dst| !live.contains(dst));
                if dead {
                    dropped = true;
                    continue;
                }
                if let Some(dst) = op.def() {
                    live.remove(dst);
                }
                op.each_use(|reg| live.insert(reg));
                kept.push((op, at));
            }
            kept.reverse();
            block.ops = kept;
        }
        if !dropped {
            return;
        }
    }
}
