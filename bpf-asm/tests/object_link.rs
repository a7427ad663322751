//! Functions that call functions: linked here as aya links them, and refused where they contradict themselves.

use std::os::unix::fs::MetadataExt;

use aya::programs::{ProgramError, Xdp};
use aya::{EbpfLoader, VerifierLogLevel};
use bpf_asm::asm::Assembler;
use bpf_asm::insn::{Insn, Reg};
use bpf_asm::object::{Object, ObjectError, link};
use bpf_asm::program::{Contents, Function, MapDef, MapType, Program, ProgramKind};

#[test]
fn the_kernel_numbers_the_instructions_as_link_does() {
    let bad_line = line!() + 3;
    let program = nested(|a| {
        // r9 holds nothing yet.
        a.mov64(Reg::R0, Reg::R9);
    });
    let linked = link(&program).unwrap();
    let names: Vec<&str> = linked.functions.iter().map(|(_, name)| &name[..]).collect();
    // `last` is first called by `middle`, which comes before `other`.
    assert_eq!(names, ["main", "middle", "last", "other"]);
    assert_eq!(linked.maps, [(1, "m".to_owned())]);

    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        skipped("needs root");
        return;
    }
    let log = rejection(&program);
    assert!(log.contains("R9 !read_ok"), "{log}");
    let ours = linked.insns.iter().zip(&linked.slots).map(|(insn, slot)| {
        let mut bytes = Vec::new();
        insn.encode(&mut bytes);
        format!("{slot}: ({:02x}) {insn}", bytes[0][0])
    });
    let ours: Vec<String> = ours.collect();
    let mut compared = 0;
    for line in log.lines() {
        let text = line.split(" ; ").next().unwrap_or(line).trim_end();
        let numbered = text
            .split_once(": (")
            .is_some_and(|(n, _)| n.parse::<usize>().is_ok());
        // The verifier prints a map's address where we have nothing yet.
        if numbered && !text.contains("(18)") {
            assert!(
                ours.iter().any(|ours| ours == text),
                "`{text}` in:\n{ours:#?}\n{log}"
            );
            compared += 1;
        }
    }
    assert!(compared >= 11, "{log}");
    let annotated = linked.annotate(&log);
    let refused = annotated.lines().rfind(|line| line.contains("r0 = r9"));
    let at = refused.and_then(|line| line.split(':').next()).unwrap();
    let at = linked.line_at(at.parse().unwrap()).unwrap();
    assert_eq!(at.line, bad_line);
    assert!(
        annotated.contains(&format!("object_link.rs:{bad_line}:")),
        "{annotated}"
    );
}

#[test]
fn functions_that_call_functions_run() {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        skipped("needs root");
        return;
    }
    let object = Object::new("GPL").program(nested(|_| {}));
    let mut ebpf = EbpfLoader::new().load(&object.to_elf().unwrap()).unwrap();
    let program: &mut Xdp = ebpf.program_mut("main").unwrap().try_into().unwrap();
    program.load().unwrap();
    let options = aya::programs::TestRunOptions {
        data_in: Some(&[0; 64]),
        ..Default::default()
    };
    let result = aya::programs::TestRun::test_run(program, options).unwrap();
    // last + (last + 1)
    assert_eq!(result.return_value, 3);
}

#[test]
fn shared_names_have_to_mean_the_same() {
    let one = |value: i32| {
        function("shared", |a| {
            a.mov64_imm(Reg::R0, value).exit();
        })
    };
    let caller = |name: &str, shared: Function, map: MapDef| {
        let main = function(name, |a| {
            a.call_local("shared").exit();
        });
        program(main, vec![shared], vec![map])
    };
    let same = Object::new("GPL")
        .program(caller("a", one(1), map("m", 1)))
        .program(caller("b", one(1), map("m", 1)));
    assert!(same.to_elf().is_ok());

    let object = Object::new("GPL")
        .program(caller("a", one(1), map("m", 1)))
        .program(caller("b", one(2), map("m", 1)));
    let error = ObjectError::ConflictingSubprogram("shared".to_owned());
    assert_eq!(object.to_elf(), Err(error));

    let object = Object::new("GPL")
        .program(caller("a", one(1), map("m", 1)))
        .program(caller("b", one(1), map("m", 2)));
    assert_eq!(
        object.to_elf(),
        Err(ObjectError::ConflictingMap("m".to_owned()))
    );

    for maps in [map("m", 1), map("a", 1)] {
        let object = Object::new("GPL")
            .program(caller("a", one(1), maps.clone()))
            .program(caller("a", one(1), maps));
        assert_eq!(
            object.to_elf(),
            Err(ObjectError::DuplicateSymbol("a".to_owned()))
        );
    }
}

#[test]
fn what_makes_no_object_is_refused_with_a_reason() {
    let exit = || {
        function("f", |a| {
            a.exit();
        })
    };
    let refused = |main: Function, maps| {
        let object = Object::new("GPL").program(program(main, vec![], maps));
        object.to_elf().unwrap_err()
    };
    let f = || "f".to_owned();

    assert_eq!(Object::new("GPL").to_elf(), Err(ObjectError::Empty));
    for license in ["", "GPL\0"] {
        let error = Object::new(license).to_elf().unwrap_err();
        assert_eq!(error, ObjectError::License(license.to_owned()));
    }
    for name in ["", "1st", "with space", "é"] {
        let main = Function {
            name: name.to_owned(),
            ..exit()
        };
        assert_eq!(refused(main, vec![]), ObjectError::Name(name.to_owned()));
    }
    let long = "sixteen_letters_";
    let error = ObjectError::Name(long.to_owned());
    assert_eq!(refused(exit(), vec![map(long, 1)]), error);

    let main = Function {
        lines: vec![],
        ..exit()
    };
    assert_eq!(refused(main, vec![]), ObjectError::Lines(f()));
    let main = Function {
        arguments: 6,
        ..exit()
    };
    assert_eq!(refused(main, vec![]), ObjectError::Arguments(f()));
    let (insns, lines) = (vec![], vec![]);
    let main = Function {
        insns,
        lines,
        ..exit()
    };
    assert_eq!(refused(main, vec![]), ObjectError::EmptyFunction(f()));

    let main = function("f", |a| {
        a.load_map(Reg::R1, "missing").exit();
    });
    let error = ObjectError::UnknownMap {
        function: f(),
        map: "missing".to_owned(),
    };
    assert_eq!(refused(main, vec![]), error);
    let main = function("f", |a| {
        a.call_local("missing").exit();
    });
    let callee = "missing".to_owned();
    let error = ObjectError::UnknownSubprogram {
        function: f(),
        callee,
    };
    assert_eq!(refused(main, vec![]), error);

    let main = function("f", |a| {
        a.mov64_imm(Reg::R0, 0)
            .emit(Insn::CallLocal { offset: 0 })
            .exit();
    });
    let error = ObjectError::Unrelocated {
        function: f(),
        at: 1,
    };
    assert_eq!(refused(main, vec![]), error);
    let mut main = function("f", |a| {
        a.load_map(Reg::R1, "m").exit();
    });
    main.relocations[0].at = 1;
    let maps = vec![map("m", 1)];
    let error = ObjectError::Unrelocated {
        function: f(),
        at: 0,
    };
    assert_eq!(refused(main.clone(), maps.clone()), error);
    main.insns[0] = Insn::Exit;
    let error = ObjectError::Relocation {
        function: f(),
        at: 1,
    };
    assert_eq!(refused(main.clone(), maps.clone()), error);
    main.relocations[0].at = 9;
    let error = ObjectError::Relocation {
        function: f(),
        at: 9,
    };
    assert_eq!(refused(main, maps), error);
}

/// `main` loads a map, then calls `middle`, then `other`; both of them call `last`.
fn nested(at_the_end: impl FnOnce(&mut Assembler)) -> Program {
    let main = function("main", |a| {
        a.mov64_imm(Reg::R6, 0).load_map(Reg::R1, "m");
        a.call_local("middle").mov64(Reg::R6, Reg::R0);
        a.call_local("other").add64(Reg::R0, Reg::R6);
        at_the_end(a);
        a.exit();
    });
    let last = function("last", |a| {
        a.mov64_imm(Reg::R0, 1).exit();
    });
    let middle = function("middle", |a| {
        a.call_local("last").exit();
    });
    let other = function("other", |a| {
        a.call_local("last").add64_imm(Reg::R0, 1).exit();
    });
    // Not in the order of calls: that is the loader's to find.
    program(main, vec![last, other, middle], vec![map("m", 1)])
}

fn function(name: &str, write: impl FnOnce(&mut Assembler)) -> Function {
    let mut a = Assembler::new(name);
    if name != "main" {
        a.arguments(0);
    }
    write(&mut a);
    a.finish().unwrap()
}

fn program(main: Function, subprograms: Vec<Function>, maps: Vec<MapDef>) -> Program {
    let kind = ProgramKind::Xdp;
    Program {
        kind,
        main,
        subprograms,
        maps,
    }
}

fn map(name: &str, max_entries: u32) -> MapDef {
    MapDef {
        name: name.to_owned(),
        map_type: MapType::Array,
        key_size: 4,
        value_size: 8,
        max_entries,
        flags: 0,
        contents: Contents::Empty,
    }
}

fn rejection(program: &Program) -> String {
    let elf = Object::new("GPL")
        .program(program.clone())
        .to_elf()
        .unwrap();
    let mut loader = EbpfLoader::new();
    loader.verifier_log_level(VerifierLogLevel::VERBOSE);
    let mut ebpf = loader.load(&elf).unwrap();
    let program: &mut Xdp = ebpf.program_mut("main").unwrap().try_into().unwrap();
    match program.load() {
        Err(ProgramError::LoadError { verifier_log, .. }) => verifier_log.to_string(),
        other => panic!("the verifier was to refuse this, not {other:?}"),
    }
}

/// Says so past the test harness, which would swallow a plain print.
fn skipped(why: &str) {
    let _ = std::io::Write::write_all(
        &mut std::io::stderr(),
        format!("SKIPPED: {why}\n").as_bytes(),
    );
}
