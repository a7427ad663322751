//! Global variables, and text for `trace_printk`.

use bpf_asm::builder::{Constant, Global, XDP_ABORTED, xdp};
use bpf_asm::object::{Object, ObjectError};
use bpf_asm::program::Program;

use crate::kernel::{Running, is_root};

const LIMIT: Constant<u32> = Constant::new("limit", 5);
const SQUARES: Constant<[u16; 4]> = Constant::new("squares", [0, 1, 4, 9]);
const COUNT: Global<u64> = Global::new("count", 1000);
const LAST: Global<[u32; 2]> = Global::zeroed("last");

fn program(name: &str) -> Program {
    let program = xdp(name, |f| {
        let count = COUNT.ptr(f);
        count.write(count.read() + LIMIT.read(f).cast::<u64>());
        let square = SQUARES.index(f, count.read() & 3u64, || f.ret(XDP_ABORTED));
        let last = LAST.ptr(f).element(1);
        let before = last.read();
        last.write(square.cast::<u32>());
        f.ret(count.read().cast::<u32>() * 100u32 + before);
    });
    program.unwrap()
}

#[test]
fn globals_begin_as_declared_and_keep_what_is_written() {
    if !is_root() {
        return;
    }
    let mut running = Running::new(program("globals"));
    assert_eq!(running.verdict(), 100_500);
    // 1005 % 4 is 1, and its square was kept.
    assert_eq!(running.verdict(), 101_001);
    assert_eq!(running.verdict(), 101_504);
}

#[test]
fn user_space_sets_constants_before_it_loads() {
    if !is_root() {
        return;
    }
    let elf = Object::new("GPL")
        .program(program("globals"))
        .to_elf()
        .unwrap();
    let mut ebpf = aya::EbpfLoader::new()
        .override_global("limit", &7u32, true)
        .load(&elf)
        .unwrap();
    let loaded: &mut aya::programs::Xdp = ebpf.program_mut("globals").unwrap().try_into().unwrap();
    loaded.load().unwrap();
    let options = aya::programs::TestRunOptions {
        data_in: Some(&[0; 64]),
        ..aya::programs::TestRunOptions::default()
    };
    use aya::programs::TestRun as _;
    assert_eq!(loaded.test_run(options).unwrap().return_value, 100_700);
}

#[test]
fn programs_of_one_object_share_variables_whatever_else_each_has() {
    const OTHER: Global<u32> = Global::new("other", 3);
    if !is_root() {
        return;
    }
    // Here `count` is the second variable of its section.
    let second = xdp("second", |f| {
        let sum = OTHER.ptr(f).read().cast::<u64>() + COUNT.ptr(f).read();
        f.ret(sum.cast::<u32>());
    })
    .unwrap();
    let object = Object::new("GPL").program(program("first")).program(second);
    let elf = object.to_elf().unwrap();
    assert_eq!(elf, object.to_elf().unwrap());
    let mut ebpf = aya::Ebpf::load(&elf).unwrap();
    let mut run = |name: &str| {
        use aya::programs::TestRun as _;
        let loaded: &mut aya::programs::Xdp = ebpf.program_mut(name).unwrap().try_into().unwrap();
        if loaded.fd().is_err() {
            loaded.load().unwrap();
        }
        let options = aya::programs::TestRunOptions {
            data_in: Some(&[0; 64]),
            ..aya::programs::TestRunOptions::default()
        };
        loaded.test_run(options).unwrap().return_value
    };
    assert_eq!(run("first"), 100_500);
    assert_eq!(run("second"), 1008);
}

#[test]
fn one_name_for_two_variables_is_an_error() {
    const WIDE: Global<u64> = Global::new("count", 7);
    let other = xdp("other", |f| f.ret(WIDE.ptr(f).read().cast::<u32>())).unwrap();
    let object = Object::new("GPL").program(program("first")).program(other);
    let conflict = ObjectError::ConflictingGlobal("count".into());
    assert_eq!(object.to_elf().unwrap_err(), conflict);
}

#[test]
fn printk_takes_its_format_from_constants() {
    if !is_root() {
        return;
    }
    let program = xdp("printk", |f| {
        f.printk("bpf-asm test: %d of %llx\n", &[f.value(7u64), f.ktime_ns()]);
        f.printk("bpf-asm test: no values, 100%%\n", &[]);
        f.ret(9u32);
    });
    assert_eq!(Running::new(program.unwrap()).verdict(), 9);
}
