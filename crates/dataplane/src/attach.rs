//! From the object to attached programs: loading, the jump table, XDP and TC hooks, and clear words when one isn't to be had.

use std::io;

use aya::maps::{Map, MapData, PerCpuArray, ProgramArray, RingBuf};
use aya::programs::links::{FdLink, Link};
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions, TcHandle,
};
use aya::programs::{
    LinkOrder, Program, ProgramError, SchedClassifier, TcAttachType, TestRun, TestRunOptions, Xdp,
    XdpMode, tc,
};
use aya::{Ebpf, EbpfError, EbpfLoader};
use bpf_asm::{object, verifier};
use electrode_fastpath::counters::Counters;
use electrode_fastpath::programs::{self, PROGRAM_PREPARE, PROGRAM_PREPARE_OK};
use nix::errno::Errno;

use crate::memory::Maps;
use crate::{Attachment, Hook, Options, Programs, Ran, Size, uninterrupted};

/// The priority of our clsact filter, so that one left behind by a killed process is found again.
const TC_PRIORITY: u16 = 0xe1ec;

/// Its handle there.
const TC_HANDLE: TcHandle = TcHandle::new(0, 1);

/// Why the fast path can't be used here; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No such interface.
    #[error("interface {0}: there is no such interface; `ip link` lists them")]
    NoInterface(String),
    /// The programs can't be built: a defect of this software.
    #[error("the programs can't be built: {0}")]
    Build(String),
    /// No rights.
    #[error(
        "loading the programs needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (or root), and a kernel that allows bpf(): {0}"
    )]
    Permission(String),
    /// The kernel doesn't take a program.
    #[error(
        "program {program}: the kernel refuses it (Linux 5.15 or later is needed; `electrode doctor` tells what is missing): {reason}"
    )]
    Load {
        /// Which.
        program: &'static str,
        /// The kernel's words, and the verifier's with the Rust lines that they are about.
        reason: String,
    },
    /// The maps can't be made or mapped.
    #[error("the fast path's maps: {0}")]
    Maps(String),
    /// Routes and neighbours can't be followed.
    #[error("can't ask the kernel for routes and neighbours: {0}")]
    Neighbours(#[source] io::Error),
    /// Another XDP program has the interface.
    #[error(
        "interface {0} has another XDP program; `ip link set dev {0} xdp off` or `bpftool net detach xdp dev {0}` removes it"
    )]
    Occupied(String),
    /// The driver has no native XDP.
    #[error(
        "interface {interface}: its driver has no native XDP ({reason}); allow generic XDP, or go without prepare and prepare_ok"
    )]
    NoNativeXdp {
        /// Which.
        interface: String,
        /// The kernel's words.
        reason: String,
    },
    /// The attachment would outlive this process.
    #[error(
        "interface {0}: the kernel has no XDP links, so a program would outlive this process; `ip link set dev {0} xdp off`, and use Linux 5.15 or later"
    )]
    NoLink(String),
    /// TC refuses.
    #[error("interface {interface}: TC egress refuses the program: {reason}")]
    Tc {
        /// Which.
        interface: String,
        /// The kernel's words.
        reason: String,
    },
}

/// An object with its maps made, and no program loaded yet. The kernel's own types, megabytes that take long to read, are
/// left alone: nothing in our objects refers to them.
pub(crate) fn with_maps(object: &[u8]) -> Result<Ebpf, EbpfError> {
    EbpfLoader::new().btf(None).load(object)
}

/// The loaded object and its links. Dropping it detaches.
pub(crate) struct Loaded {
    ebpf: Ebpf,
    _jumps: Option<ProgramArray<MapData>>,
    _xdp: Option<FdLink>,
    _tc: Option<SchedClassifierLink>,
}

impl Loaded {
    /// Loads what `programs` asks for of an object.
    pub(crate) fn load(programs: Programs, object: &[u8]) -> Result<Loaded, AttachError> {
        let mut ebpf = with_maps(object).map_err(from_ebpf)?;
        let jumps = if programs.prepare || programs.prepare_ok {
            let map = take(&mut ebpf, "programs")?;
            let mut jumps = ProgramArray::try_from(map).map_err(from_map)?;
            for (wanted, name, at) in [
                (programs.prepare, "prepare", PROGRAM_PREPARE),
                (programs.prepare_ok, "prepare_ok", PROGRAM_PREPARE_OK),
            ] {
                if wanted {
                    load_xdp(&mut ebpf, name)?;
                    let program: &mut Xdp = xdp(&mut ebpf, name)?;
                    let fd = program.fd().map_err(|error| refused(name, &error))?;
                    jumps.set(at, fd, 0).map_err(from_map)?;
                }
            }
            load_xdp(&mut ebpf, "dispatch")?;
            Some(jumps)
        } else {
            None
        };
        if programs.broadcast {
            let program = classifier(&mut ebpf)?;
            uninterrupted::load(|| program.load()).map_err(|error| refused("broadcast", &error))?;
        }
        Ok(Loaded {
            ebpf,
            _jumps: jumps,
            _xdp: None,
            _tc: None,
        })
    }

    /// Maps the shared memory.
    pub(crate) fn maps(&self) -> Result<Maps, AttachError> {
        let array = |name: &str| match self.ebpf.map(name) {
            Some(Map::Array(data) | Map::RingBuf(data)) => Ok(data.fd()),
            _ => Err(AttachError::Maps(format!("no map {name}"))),
        };
        Maps::map(
            array("shared")?,
            array("slots")?,
            array("heard")?,
            array("targets")?,
            array("ring")?,
        )
        .map_err(|error| AttachError::Maps(error.to_string()))
    }

    pub(crate) fn ring(&mut self) -> Result<RingBuf<MapData>, AttachError> {
        RingBuf::try_from(take(&mut self.ebpf, "ring")?).map_err(from_map)
    }

    pub(crate) fn counters(
        &mut self,
    ) -> Result<PerCpuArray<MapData, [u64; Counters::LEN]>, AttachError> {
        PerCpuArray::try_from(take(&mut self.ebpf, "counters")?).map_err(from_map)
    }

    /// Attaches what was loaded. The maps must hold what the programs expect.
    pub(crate) fn attach(
        &mut self,
        options: &Options,
        interface: u32,
    ) -> Result<Attachment, AttachError> {
        let mut attachment = Attachment {
            interface: options.interface.clone(),
            xdp: Hook::Off,
            tc: Hook::Off,
        };
        if options.programs.prepare || options.programs.prepare_ok {
            let (link, hook) = self.attach_xdp(options, interface)?;
            self._xdp = Some(link);
            attachment.xdp = hook;
        }
        if options.programs.broadcast {
            let (link, hook) = self.attach_tc(&options.interface)?;
            self._tc = Some(link);
            attachment.tc = hook;
        }
        Ok(attachment)
    }

    /// BPF_PROG_TEST_RUN: the verdict, the frame afterwards, and how long a run took.
    pub(crate) fn run(&self, name: &str, frame: &[u8], repeat: u32) -> io::Result<Ran> {
        let mut out = vec![0; frame.len() + 512];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            repeat,
            ..TestRunOptions::default()
        };
        let result = match self.ebpf.program(name) {
            Some(Program::Xdp(program)) => program.test_run(options),
            Some(Program::SchedClassifier(program)) => program.test_run(options),
            _ => return Err(no_program(name)),
        }
        .map_err(|error| io::Error::other(chain(&error)))?;
        out.truncate(result.data_size_out as usize);
        Ok(Ran {
            verdict: result.return_value,
            frame: out,
            time: result.duration,
        })
    }

    /// How long a loaded program is.
    pub(crate) fn size(&self, name: &str) -> io::Result<Size> {
        let program = self.ebpf.program(name).ok_or_else(|| no_program(name))?;
        let info = program
            .info()
            .map_err(|error| io::Error::other(chain(&error)))?;
        let missing = || io::Error::other("the kernel doesn't tell");
        Ok(Size {
            instructions: info.size_translated().ok_or_else(missing)? / 8,
            native_bytes: info.size_jitted(),
            verified: info.verified_instruction_count().ok_or_else(missing)?,
        })
    }

    fn attach_xdp(
        &mut self,
        options: &Options,
        interface: u32,
    ) -> Result<(FdLink, Hook), AttachError> {
        let name = || options.interface.clone();
        let program = xdp(&mut self.ebpf, "dispatch")?;
        let (id, hook) = match program.attach_to_if_index(interface, XdpMode::Driver) {
            Ok(id) => (id, Hook::Native),
            Err(error) if is_occupied(&error) => return Err(AttachError::Occupied(name())),
            Err(error) if options.allow_generic => {
                tracing::warn!(%error, interface = options.interface, "no native XDP; using generic XDP, which is slower");
                match program.attach_to_if_index(interface, XdpMode::Skb) {
                    Ok(id) => (id, Hook::Generic),
                    Err(error) if is_occupied(&error) => return Err(AttachError::Occupied(name())),
                    Err(error) => {
                        return Err(AttachError::NoNativeXdp {
                            interface: name(),
                            reason: chain(&error),
                        });
                    }
                }
            }
            Err(error) => {
                return Err(AttachError::NoNativeXdp {
                    interface: name(),
                    reason: chain(&error),
                });
            }
        };
        let link = program
            .take_link(id)
            .map_err(|error| AttachError::NoNativeXdp {
                interface: name(),
                reason: chain(&error),
            })?;
        // aya falls back to an attachment by netlink without a word; that one would survive us.
        let link = FdLink::try_from(link).map_err(|_| AttachError::NoLink(name()))?;
        Ok((link, hook))
    }

    fn attach_tc(&mut self, interface: &str) -> Result<(SchedClassifierLink, Hook), AttachError> {
        let refused = |reason: String| AttachError::Tc {
            interface: interface.to_owned(),
            reason,
        };
        let program = classifier(&mut self.ebpf)?;
        let order = TcAttachOptions::TcxOrder(LinkOrder::default());
        let (id, hook) = match program.attach_with_options(interface, TcAttachType::Egress, order) {
            Ok(id) => (id, Hook::Tcx),
            // Kernels before 6.6 don't know TCX links.
            Err(tcx) => {
                tracing::debug!(error = chain(&tcx), "no TCX link; using clsact");
                let id = attach_clsact(program, interface).map_err(refused)?;
                (id, Hook::Clsact)
            }
        };
        let link = program
            .take_link(id)
            .map_err(|error| refused(chain(&error)))?;
        Ok((link, hook))
    }
}

/// Attaches by netlink, which has no owner: what is attached outlives a process that is killed.
fn attach_clsact(
    program: &mut SchedClassifier,
    interface: &str,
) -> Result<SchedClassifierLinkId, String> {
    match tc::qdisc_add_clsact(interface) {
        Ok(()) => {}
        // The queueing discipline of an earlier process, or of somebody else: filters of several share one.
        Err(tc::TcError::NetlinkError(error))
            if error.raw_os_error() == Some(Errno::EEXIST as i32) => {}
        Err(error) => return Err(chain(&error)),
    }
    // What a killed process left there is harmless (its maps say "fenced" to nobody), but it would make copies, and has our
    // place. It is found by that place.
    let left = SchedClassifierLink::attached(
        interface,
        TcAttachType::Egress,
        TC_PRIORITY,
        TC_HANDLE,
        None,
    );
    if let Err(error) = left.map_err(ProgramError::IOError).and_then(Link::detach) {
        // Usually there is none. One that stays shows at once, by the place being taken.
        tracing::debug!(error = chain(&error), "no filter of an earlier process");
    }
    let options = TcAttachOptions::Netlink(NlOptions {
        priority: TC_PRIORITY,
        handle: TC_HANDLE,
        ..NlOptions::default()
    });
    program
        .attach_with_options(interface, TcAttachType::Egress, options)
        .map_err(|error| chain(&error))
}

fn no_program(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no program {name}"))
}

fn take(ebpf: &mut Ebpf, name: &str) -> Result<Map, AttachError> {
    ebpf.take_map(name)
        .ok_or_else(|| AttachError::Maps(format!("no map {name}")))
}

fn xdp<'e>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<&'e mut Xdp, AttachError> {
    let program = ebpf
        .program_mut(name)
        .ok_or_else(|| AttachError::Build(format!("no program {name}")))?;
    program.try_into().map_err(|error| refused(name, &error))
}

fn classifier(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, AttachError> {
    let program = ebpf
        .program_mut("broadcast")
        .ok_or_else(|| AttachError::Build("no program broadcast".into()))?;
    program
        .try_into()
        .map_err(|error| refused("broadcast", &error))
}

fn load_xdp(ebpf: &mut Ebpf, name: &'static str) -> Result<(), AttachError> {
    let program = xdp(ebpf, name)?;
    uninterrupted::load(|| program.load()).map_err(|error| refused(name, &error))
}

fn refused(program: &'static str, error: &ProgramError) -> AttachError {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            if io_error.kind() == io::ErrorKind::PermissionDenied
                && verifier_log.to_string().trim().is_empty()
            {
                return AttachError::Permission(io_error.to_string());
            }
            AttachError::Load {
                program,
                reason: format!("{io_error}; {}", told(program, &verifier_log.to_string())),
            }
        }
        other => AttachError::Load {
            program,
            reason: chain(other),
        },
    }
}

/// The verifier's log in some twenty lines, with the Rust lines of the program; its end, if there is no such program.
fn told(program: &str, log: &str) -> String {
    let built = programs::build(program).and_then(Result::ok);
    match built.and_then(|program| object::link(&program).ok()) {
        Some(linked) => verifier::explain(log, &linked, programs::SOURCES).to_string(),
        None => {
            let lines: Vec<&str> = log.lines().collect();
            lines[lines.len().saturating_sub(20)..].join("\n  ")
        }
    }
}

pub(crate) fn is_occupied(error: &ProgramError) -> bool {
    is(error, nix::errno::Errno::EBUSY) || is(error, nix::errno::Errno::EEXIST)
}

/// Whether the error comes from this error number.
fn is(error: &(dyn std::error::Error + 'static), code: nix::errno::Errno) -> bool {
    let mut source = Some(error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.raw_os_error() == Some(code as i32);
        }
        source = error.source();
    }
    false
}

fn from_ebpf(error: EbpfError) -> AttachError {
    let text = chain(&error);
    if text.contains("Operation not permitted") || text.contains("Permission denied") {
        AttachError::Permission(text)
    } else {
        AttachError::Maps(text)
    }
}

fn from_map(error: aya::maps::MapError) -> AttachError {
    AttachError::Maps(chain(&error))
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use bpf_asm::builder::{self, TC_ACT_OK};
    use electrode_lab::{Lab, root_or_skip};

    use super::*;

    /// What a kernel without TCX links (before Linux 6.6) is left with; they all have clsact.
    #[test]
    fn a_filter_that_a_killed_process_left_is_replaced() {
        if !root_or_skip("a clsact filter") {
            return;
        }
        let lab = Lab::new("clsact").unwrap();
        let host = lab.host("a").unwrap();
        let program = builder::classifier("broadcast", |f| f.ret(TC_ACT_OK)).unwrap();
        let elf = object::Object::new("GPL")
            .program(program)
            .to_elf()
            .unwrap();
        host.in_namespace(|| {
            for _ in 0..3 {
                let mut ebpf = Ebpf::load(&elf).unwrap();
                let program = classifier(&mut ebpf).unwrap();
                program.load().unwrap();
                let id = attach_clsact(program, host.interface()).unwrap();
                // Nothing detaches it, as after a kill.
                std::mem::forget(program.take_link(id).unwrap());
            }
        })
        .unwrap();
        let mut command = host.command("tc");
        command
            .args(["filter", "show", "dev", host.interface(), "egress"])
            .stdout(Stdio::piped());
        let output = host.spawn(command).unwrap().wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.matches("handle 0x1").count(), 1, "{text}");
    }
}
