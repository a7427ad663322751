//! The same programs in C, compiled by clang (`crates/fastpath/tests/clang`), in the same kernel: [`shadow`](crate::shadow) gives
//! them every frame that our own get.

#[path = "../../../../bpf-asm/tests/clang/compiler.rs"]
mod compiler;

use std::cell::RefCell;
use std::path::Path;
use std::sync::OnceLock;

use electrode_dataplane::{Dataplane, Image, Options, Programs};
use electrode_lab::root_or_skip;
use electrode_vr::ReplicaId;

use crate::group::{ALL, V4};

/// Instructions beside clang's, in hundredths.
const MOST_INSTRUCTIONS: u32 = 110;

thread_local! {
    /// clang's programs that nobody uses just now: loading them takes the verifier half a second. (One test at a time means one
    /// thread for all of them.)
    static IDLE: RefCell<Vec<Clang>> = const { RefCell::new(Vec::new()) };
}

/// clang's object; None where there is no clang, which is said once.
fn object() -> Option<&'static [u8]> {
    static OBJECT: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    let object = OBJECT.get_or_init(|| {
        if !compiler::has_clang() {
            let why = "SKIPPED: there is no clang that compiles for BPF to compare programs with\n";
            let _ = std::io::Write::write_all(&mut std::io::stderr(), why.as_bytes());
            return None;
        }
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        Some(compiler::compiled(
            &here.join("../fastpath/tests/clang/programs.c"),
            &here.join("../../bpf-asm/tests/clang"),
        ))
    });
    object.as_deref()
}

fn load(programs: Programs, object: &[u8]) -> Dataplane {
    let options = Options {
        interface: "lo".to_owned(),
        programs,
        answer: true,
        allow_generic: false,
        index: ReplicaId(0),
        replicas: vec![V4.address(0)],
        key: [0; 16],
    };
    Dataplane::load_object(&options, object).expect("the programs load")
}

/// clang's programs, with maps of their own.
pub(crate) struct Clang {
    programs: Programs,
    pub(crate) dataplane: Dataplane,
    /// Where its ring was when its user began.
    began: [u64; 2],
}

impl Clang {
    /// Programs that nobody else uses, their ring empty; None without clang.
    pub(crate) fn borrow(programs: Programs) -> Option<Clang> {
        let object = object()?;
        let idle = IDLE.with_borrow_mut(|idle| {
            let found = idle.iter().position(|clang| clang.programs == programs);
            found.map(|at| idle.swap_remove(at))
        });
        let mut clang = idle.unwrap_or_else(|| Clang {
            programs,
            dataplane: load(programs, object),
            began: [0; 2],
        });
        while clang.dataplane.take_record(&mut Vec::new()) {}
        clang.began = clang.dataplane.image().ring;
        assert_eq!(clang.began[0], clang.began[1], "its ring is empty");
        Some(clang)
    }

    /// For the next to borrow.
    pub(crate) fn give_back(self) {
        IDLE.with_borrow_mut(|idle| idle.push(self));
    }

    /// The maps, the ring as if it had been new.
    pub(crate) fn image(&self) -> Image {
        let mut image = self.dataplane.image();
        for (position, began) in image.ring.iter_mut().zip(self.began) {
            *position -= began;
        }
        image
    }
}

/// The same logic, in the same instruction set. How long the programs take is for `examples/against_clang.rs` to say.
#[test]
fn programs_are_at_most_a_tenth_longer_than_clang_s() {
    if !root_or_skip("programs beside clang's") {
        return;
    }
    let Some(object) = object() else { return };
    let theirs = load(ALL, object).runner();
    let built = electrode_fastpath::programs::object().expect("they build");
    let ours = load(ALL, &built).runner();
    for name in electrode_fastpath::programs::NAMES {
        let [ours, theirs] = [&ours, &theirs].map(|runner| runner.size(name).expect("a size"));
        assert!(
            ours.instructions * 100 <= theirs.instructions * MOST_INSTRUCTIONS,
            "{name}: {ours:?}, clang's: {theirs:?}"
        );
    }
}
