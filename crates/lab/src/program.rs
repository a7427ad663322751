//! Programs of the lab's own, loaded and attached to interfaces in its namespaces.

use std::fmt::Display;

use aya::programs::tc::TcAttachType;
use aya::programs::xdp::XdpMode;
use aya::programs::{ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use bpf_asm::asm::Assembler;
use bpf_asm::insn::Reg;
use bpf_asm::object::{self, Linked, Object};
use bpf_asm::program::{Program, ProgramKind};
use bpf_asm::verifier;

use crate::{LabError, namespace};

/// Verdict of XDP programs: to the stack.
const XDP_PASS: i32 = 2;

/// A loaded program. Dropping it detaches it everywhere.
#[derive(Debug)]
pub struct Loaded {
    name: String,
    kind: ProgramKind,
    pub(crate) ebpf: Ebpf,
}

impl Loaded {
    /// Loads a program with its maps.
    ///
    /// # Errors
    /// The program makes no object, or the kernel refuses it: with the verifier's words.
    pub fn new(program: Program) -> Result<Loaded, LabError> {
        let name = program.main.name.clone();
        let kind = program.kind;
        let loading = format!("loading the program {name}");
        let linked = object::link(&program).map_err(refused(&loading))?;
        let elf = Object::new("Dual MIT/GPL")
            .program(program)
            .to_elf()
            .map_err(refused(&loading))?;
        // Without the kernel's own BTF, which takes long to parse and which no relocation here needs.
        let mut ebpf = EbpfLoader::new()
            .btf(None)
            .load(&elf)
            .map_err(refused(&loading))?;
        match kind {
            ProgramKind::Xdp | ProgramKind::XdpFrags => {
                xdp(&mut ebpf, &name)?
                    .load()
                    .map_err(rejected(&loading, &linked))?;
            }
            ProgramKind::Classifier => {
                classifier(&mut ebpf, &name)?
                    .load()
                    .map_err(rejected(&loading, &linked))?;
            }
        }
        Ok(Loaded { name, kind, ebpf })
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Attaches it in the namespace: XDP natively, a classifier to the egress.
    pub(crate) fn attach(&mut self, namespace: &str, interface: &str) -> Result<(), LabError> {
        let attaching = format!("attaching the program {} to {interface}", self.name);
        namespace::run(namespace, || match self.kind {
            ProgramKind::Xdp | ProgramKind::XdpFrags => xdp(&mut self.ebpf, &self.name)?
                .attach(interface, XdpMode::Driver)
                .map(drop)
                .map_err(refused(&attaching)),
            ProgramKind::Classifier => {
                // There may be one already; and from Linux 6.6 none is needed.
                let _ = aya::programs::tc::qdisc_add_clsact(interface);
                classifier(&mut self.ebpf, &self.name)?
                    .attach(interface, TcAttachType::Egress)
                    .map(drop)
                    .map_err(refused(&attaching))
            }
        })?
    }
}

/// Who is attached to the egress by TCX links, by name.
pub(crate) fn egress_links(namespace: &str, interface: &str) -> Result<Vec<String>, LabError> {
    let query = || SchedClassifier::query_tcx(interface, TcAttachType::Egress);
    let (_, programs) = namespace::run(namespace, query)?
        .map_err(refused(&format!("asking for the links of {interface}")))?;
    let name =
        |program: &aya::programs::ProgramInfo| String::from_utf8_lossy(program.name()).into_owned();
    Ok(programs.iter().map(name).collect())
}

/// The program that every port of the switch has. Frames that a host sends by XDP_TX vanish without a trace when the
/// other end of its veth pair has no XDP program.
pub(crate) fn pass() -> Result<Program, LabError> {
    let mut code = Assembler::new("lab_pass");
    code.mov64_imm(Reg::R0, XDP_PASS).exit();
    Ok(Program {
        kind: ProgramKind::Xdp,
        main: code
            .finish()
            .map_err(refused("assembling the switch's program"))?,
        subprograms: Vec::new(),
        maps: Vec::new(),
    })
}

/// For `map_err`: what a loader or an assembler said, with everything behind it.
pub(crate) fn refused<E: std::error::Error>(doing: &str) -> impl FnOnce(E) -> LabError {
    move |error| {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            message.push_str(": ");
            message.push_str(&error.to_string());
            cause = error.source();
        }
        LabError::Program {
            doing: doing.to_owned(),
            message,
        }
    }
}

/// For `map_err`: a program that didn't load, told with its Rust lines where the verifier had something to say.
fn rejected(doing: &str, linked: &Linked) -> impl FnOnce(ProgramError) -> LabError {
    move |error| match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => LabError::Program {
            doing: doing.to_owned(),
            message: format!(
                "{io_error}; {}",
                verifier::explain(&verifier_log.to_string(), linked, &[])
            ),
        },
        other => refused(doing)(other),
    }
}

fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, LabError> {
    let program = ebpf
        .program_mut(name)
        .ok_or_else(|| missing(name, "gone"))?;
    program.try_into().map_err(|error| missing(name, error))
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, LabError> {
    let program = ebpf
        .program_mut(name)
        .ok_or_else(|| missing(name, "gone"))?;
    program.try_into().map_err(|error| missing(name, error))
}

fn missing(name: &str, why: impl Display) -> LabError {
    LabError::Program {
        doing: format!("finding the program {name} in its own object"),
        message: why.to_string(),
    }
}
