//! Asking the running kernel what it can do, by loading tiny programs: what a version number only suggests, this knows.
//!
//! One program per instruction or helper that the fast path uses, so that a refusal names the one thing that is missing.
//! Nothing here stays behind: programs and maps go when their probe ends, and [`xdp`] and [`tcx`] detach what they attach.

mod interface;

use aya::programs::{ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfError};
use bpf_asm::asm::Assembler;
use bpf_asm::insn::Reg;
use bpf_asm::object::Object;
use bpf_asm::program::{Contents, MapDef, MapType, Program, ProgramKind};

use crate::attach::{chain, with_maps};
use crate::memory::Pages;
use crate::uninterrupted;

pub use interface::{Attachable, Interface, Neighbour, interface, tcx, xdp};

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The kernel takes it.
    Works,
    /// The kernel doesn't take it; its reason.
    Missing(String),
    /// This process isn't allowed to ask.
    Forbidden,
}

/// One instruction, helper or map type, probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// What was probed, for example `64-bit atomic fetch-add`.
    pub name: &'static str,
    /// The programs that need it, separated by `, `.
    pub needed_by: &'static str,
    /// What the kernel said.
    pub outcome: Outcome,
}

/// Probes everything that the fast path's programs need, one by one.
#[must_use]
pub fn features() -> Vec<Feature> {
    PROBES
        .iter()
        .map(|probe| Feature {
            name: probe.name,
            needed_by: probe.needed_by,
            outcome: probe.ask(),
        })
        .collect()
}

/// A program of a few instructions, and the map that it uses.
struct Probe {
    name: &'static str,
    needed_by: &'static str,
    kind: ProgramKind,
    map: Option<(MapType, u32)>,
    /// Emits the program up to its return.
    code: fn(&mut Assembler),
}

/// The one map of a probe.
const MAP: &str = "probe_map";
const BPF_F_MMAPABLE: u32 = 1 << 10;
const XDP_PASS: i32 = 2;
/// Of `struct __sk_buff`.
const SKB_MARK: i16 = 8;

// Helpers by the numbers of linux/bpf.h.
const MAP_LOOKUP_ELEM: u32 = 1;
const KTIME_GET_NS: u32 = 5;
const L4_CSUM_REPLACE: u32 = 11;
const TAIL_CALL: u32 = 12;
const CLONE_REDIRECT: u32 = 13;
const XDP_ADJUST_TAIL: u32 = 65;
const RINGBUF_OUTPUT: u32 = 130;
const RINGBUF_RESERVE: u32 = 131;
const RINGBUF_SUBMIT: u32 = 132;
const RINGBUF_QUERY: u32 = 134;

const RING: Option<(MapType, u32)> = Some((MapType::RingBuf, 0));
const ALL: &str = "dispatch, prepare, prepare_ok, broadcast";

const PROBES: &[Probe] = &[
    xdp_probe("XDP program", ALL, None, |_| {}),
    xdp_probe("64-bit atomic fetch-add", ALL, None, |a| {
        a.st_dw(Reg::R10, -8, 0).mov64_imm(Reg::R1, 1);
        a.fetch_add64(Reg::R10, -8, Reg::R1);
    }),
    xdp_probe(
        "64-bit atomic compare-and-exchange",
        "prepare, prepare_ok",
        None,
        |a| {
            a.st_dw(Reg::R10, -8, 0)
                .mov64_imm(Reg::R0, 0)
                .mov64_imm(Reg::R1, 1);
            a.cmpxchg64(Reg::R10, -8, Reg::R1);
        },
    ),
    xdp_probe(
        "bounded loop",
        "prepare, prepare_ok, broadcast",
        None,
        |a| {
            let again = a.label();
            a.mov64_imm(Reg::R1, 0).bind(again).add64_imm(Reg::R1, 1);
            a.jlt64_imm(Reg::R1, 64, again);
        },
    ),
    xdp_probe("ring buffer reserve and submit", "prepare", RING, |a| {
        let full = a.label();
        a.load_map(Reg::R1, MAP)
            .mov64_imm(Reg::R2, 16)
            .mov64_imm(Reg::R3, 0);
        a.call(RINGBUF_RESERVE).jeq64_imm(Reg::R0, 0, full);
        a.st_dw(Reg::R0, 0, 1).st_dw(Reg::R0, 8, 2);
        a.mov64(Reg::R1, Reg::R0)
            .mov64_imm(Reg::R2, 0)
            .call(RINGBUF_SUBMIT);
        a.bind(full);
    }),
    xdp_probe("ring buffer output", "prepare_ok", RING, |a| {
        a.st_dw(Reg::R10, -8, 0).load_map(Reg::R1, MAP);
        a.mov64(Reg::R2, Reg::R10).add64_imm(Reg::R2, -8);
        a.mov64_imm(Reg::R3, 8)
            .mov64_imm(Reg::R4, 0)
            .call(RINGBUF_OUTPUT);
    }),
    xdp_probe("ring buffer query", "prepare", RING, |a| {
        a.load_map(Reg::R1, MAP)
            .mov64_imm(Reg::R2, 0)
            .call(RINGBUF_QUERY);
    }),
    xdp_probe(
        "tail call",
        "dispatch",
        Some((MapType::ProgArray, 0)),
        |a| {
            a.load_map(Reg::R2, MAP)
                .mov64_imm(Reg::R3, 0)
                .call(TAIL_CALL);
        },
    ),
    xdp_probe("xdp_adjust_tail", "prepare", None, |a| {
        a.mov64_imm(Reg::R2, 0).call(XDP_ADJUST_TAIL);
    }),
    xdp_probe("ktime_get_ns", "prepare, prepare_ok", None, |a| {
        a.call(KTIME_GET_NS);
    }),
    xdp_probe(
        "per-CPU array",
        ALL,
        Some((MapType::PerCpuArray, 0)),
        look_up,
    ),
    xdp_probe(
        "array mapped into memory",
        ALL,
        Some((MapType::Array, BPF_F_MMAPABLE)),
        look_up,
    ),
    tc_probe("TC program", |_| {}),
    tc_probe("clone_redirect", |a| {
        a.mov64_imm(Reg::R2, 1)
            .mov64_imm(Reg::R3, 0)
            .call(CLONE_REDIRECT);
    }),
    tc_probe("l4_csum_replace", |a| {
        a.mov64_imm(Reg::R2, 40)
            .mov64_imm(Reg::R3, 0)
            .mov64_imm(Reg::R4, 0);
        a.mov64_imm(Reg::R5, 2).call(L4_CSUM_REPLACE);
    }),
    tc_probe("packet mark", |a| {
        a.mov64_imm(Reg::R2, 1).stx_w(Reg::R1, SKB_MARK, Reg::R2);
    }),
];

const fn xdp_probe(
    name: &'static str,
    needed_by: &'static str,
    map: Option<(MapType, u32)>,
    code: fn(&mut Assembler),
) -> Probe {
    Probe {
        name,
        needed_by,
        kind: ProgramKind::Xdp,
        map,
        code,
    }
}

const fn tc_probe(name: &'static str, code: fn(&mut Assembler)) -> Probe {
    Probe {
        name,
        needed_by: "broadcast",
        kind: ProgramKind::Classifier,
        map: None,
        code,
    }
}

fn look_up(a: &mut Assembler) {
    a.st_w(Reg::R10, -4, 0).load_map(Reg::R1, MAP);
    a.mov64(Reg::R2, Reg::R10)
        .add64_imm(Reg::R2, -4)
        .call(MAP_LOOKUP_ELEM);
}

impl Probe {
    fn ask(&self) -> Outcome {
        match self.load() {
            Ok(()) => Outcome::Works,
            Err(Refusal::Forbidden) => Outcome::Forbidden,
            Err(Refusal::Because(reason)) => Outcome::Missing(reason),
        }
    }

    fn load(&self) -> Result<(), Refusal> {
        let mut maps = Vec::new();
        if let Some((map_type, flags)) = self.map {
            let (key_size, value_size, max_entries) = match map_type {
                MapType::RingBuf => (0, 0, 1 << 16),
                MapType::ProgArray => (4, 4, 1),
                _ => (4, 8, 1),
            };
            let name = MAP.to_owned();
            maps.push(MapDef {
                name,
                map_type,
                key_size,
                value_size,
                max_entries,
                flags,
                contents: Contents::Empty,
            });
        }
        let ebpf = load(self.kind, maps, self.code)?;
        if let Some((_, BPF_F_MMAPABLE)) = self.map
            && let Some(aya::maps::Map::Array(array)) = ebpf.map(MAP)
        {
            let page = rustix::param::page_size();
            Pages::map(std::os::fd::AsFd::as_fd(array.fd()), page, 0, true)
                .map_err(|error| Refusal::Because(format!("mmap: {error}")))?;
        }
        Ok(())
    }
}

/// Why a program wasn't loaded.
enum Refusal {
    Forbidden,
    Because(String),
}

/// The name of a probe's program.
const PROGRAM: &str = "probe";

/// Loads a program that does what `code` says and passes the packet on.
fn load(kind: ProgramKind, maps: Vec<MapDef>, code: fn(&mut Assembler)) -> Result<Ebpf, Refusal> {
    let mut a = Assembler::new(PROGRAM);
    code(&mut a);
    let verdict = if kind == ProgramKind::Classifier {
        TCX_NEXT
    } else {
        XDP_PASS
    };
    a.mov64_imm(Reg::R0, verdict).exit();
    let main = a
        .finish()
        .map_err(|error| Refusal::Because(error.to_string()))?;
    let program = Program {
        kind,
        main,
        subprograms: Vec::new(),
        maps,
    };
    // The licence of the real programs, since some helpers ask for it.
    let object = Object::new("Dual MIT/GPL").program(program).to_elf();
    let object = object.map_err(|error| Refusal::Because(error.to_string()))?;
    let mut ebpf = with_maps(&object).map_err(|error| from_ebpf(&error))?;
    let program = ebpf.program_mut(PROGRAM).ok_or(Refusal::Forbidden)?;
    match kind {
        ProgramKind::Classifier => {
            <&mut SchedClassifier>::try_from(program).and_then(|p| uninterrupted::load(|| p.load()))
        }
        _ => <&mut Xdp>::try_from(program).and_then(|p| uninterrupted::load(|| p.load())),
    }
    .map_err(|error| from_program(&error))?;
    Ok(ebpf)
}

/// `TCX_NEXT`, alias `TC_ACT_UNSPEC`: let others decide.
const TCX_NEXT: i32 = -1;

fn from_ebpf(error: &EbpfError) -> Refusal {
    let text = chain(error);
    if text.contains("Operation not permitted") || text.contains("Permission denied") {
        Refusal::Forbidden
    } else {
        Refusal::Because(text)
    }
}

fn from_program(error: &ProgramError) -> Refusal {
    let ProgramError::LoadError {
        io_error,
        verifier_log,
    } = error
    else {
        return Refusal::Because(chain(error));
    };
    let log = verifier_log.to_string();
    // The last lines are statistics; the one before says what the verifier dislikes.
    let statistics = ["processed ", "stack depth ", "verification time "];
    let mut lines = log.lines().rev().map(str::trim);
    let said = lines
        .find(|line| !line.is_empty() && !statistics.iter().any(|start| line.starts_with(start)));
    match said {
        Some(line) => Refusal::Because(format!("{io_error}: {line}")),
        None if io_error.kind() == std::io::ErrorKind::PermissionDenied => Refusal::Forbidden,
        None => Refusal::Because(io_error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use bpf_asm::insn::Insn;

    use super::*;

    #[test]
    fn helpers_have_the_numbers_of_their_names() {
        for (number, name) in [
            (MAP_LOOKUP_ELEM, "map_lookup_elem"),
            (KTIME_GET_NS, "ktime_get_ns"),
            (L4_CSUM_REPLACE, "l4_csum_replace"),
            (TAIL_CALL, "tail_call"),
            (CLONE_REDIRECT, "clone_redirect"),
            (XDP_ADJUST_TAIL, "xdp_adjust_tail"),
            (RINGBUF_OUTPUT, "ringbuf_output"),
            (RINGBUF_RESERVE, "ringbuf_reserve"),
            (RINGBUF_SUBMIT, "ringbuf_submit"),
            (RINGBUF_QUERY, "ringbuf_query"),
        ] {
            assert_eq!(Insn::helper_name(number), Some(name));
        }
    }

    /// Every helper that a real program calls is one that is probed, lest a program be refused for what nobody asked about.
    #[test]
    fn every_helper_of_the_real_programs_is_probed() {
        let helpers = |insns: &[Insn]| -> Vec<u32> {
            let call = |insn: &Insn| match insn {
                Insn::Call { helper } => Some(*helper),
                _ => None,
            };
            insns.iter().filter_map(call).collect()
        };
        let mut probed = vec![133]; // ringbuf_discard came with submit, in one commit of Linux 5.8.
        for probe in PROBES {
            let mut a = Assembler::new(PROGRAM);
            (probe.code)(&mut a);
            a.exit();
            probed.extend(helpers(&a.finish().unwrap().insns));
        }
        for name in electrode_fastpath::programs::NAMES {
            let program = electrode_fastpath::programs::build(name).unwrap().unwrap();
            for helper in helpers(&program.main.insns) {
                let called = Insn::helper_name(helper);
                assert!(probed.contains(&helper), "{name} calls {called:?}");
            }
        }
    }

    #[test]
    fn a_program_that_the_verifier_refuses_is_missing_with_its_words() {
        let probe = xdp_probe("reads r9 before it is written", ALL, None, |a| {
            a.mov64(Reg::R0, Reg::R9);
        });
        match probe.ask() {
            Outcome::Missing(reason) => assert!(reason.contains("R9 !read_ok"), "{reason}"),
            Outcome::Forbidden => eprintln!("SKIPPED: needs the right to load programs"),
            Outcome::Works => panic!("no kernel takes this"),
        }
    }
}
