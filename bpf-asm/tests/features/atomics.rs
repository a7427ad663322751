//! Every atomic, of both widths, with and without the old value.

use bpf_asm::builder::{Array, Field, Function, Ptr, Val, XDP_PASS, Xdp, xdp_for};
use bpf_asm::field;
use bpf_asm::target::Target;

use crate::kernel::{Running, is_root, probed};

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Words {
    wide: [u64; 12],
    narrow: [u32; 12],
}

const WORDS: Array<Words> = Array::new("words", 1);
const BEFORE: u8 = 0b1100;
const OPERAND: u8 = 0b1010;

macro_rules! every_operation {
    ($name:ident, $type:ty) => {
        /// Applies each operation to a word of its own, and keeps the old values' sum and what a failed exchange saw.
        fn $name<'f>(f: Function<'f, Xdp>, words: Ptr<'f, [$type; 12]>) {
            let whole = Field::<$type, $type>::whole;
            let at = |number| words.element(number);
            let operand: Val<'f, $type> = f.value(OPERAND.into());
            for number in 0..10 {
                at(number).write(<$type>::from(BEFORE));
            }
            at(0).atomic_add(whole(), operand);
            at(1).atomic_and(whole(), operand);
            at(2).atomic_or(whole(), operand);
            at(3).atomic_xor(whole(), operand);
            let old = at(4).fetch_add(whole(), operand)
                + at(5).fetch_and(whole(), operand)
                + at(6).fetch_or(whole(), operand)
                + at(7).fetch_xor(whole(), operand)
                + at(8).exchange(whole(), operand)
                + at(9).compare_exchange(whole(), <$type>::from(BEFORE), operand);
            at(10).write(old);
            at(11).store_release(
                whole(),
                at(9).compare_exchange(whole(), <$type>::from(BEFORE), 1),
            );
            let seen = at(11).load_acquire(whole());
            at(10).write(at(10).read() + seen);
        }
    };
}
every_operation!(wide, u64);
every_operation!(narrow, u32);

#[test]
fn atomics_change_memory_and_give_what_was_there() {
    if !is_root() {
        return;
    }
    let words = [22, 8, 14, 6, 22, 8, 14, 6, 10, 10, 6 * 12 + 10, 10];
    for target in [Target::common(), probed()] {
        let program = xdp_for(&target, "atomics", |f| {
            let words = WORDS.lookup(f, 0u32, || f.ret(0u32));
            wide(f, words.at(field!(Words, wide)));
            narrow(f, words.at(field!(Words, narrow)));
            f.ret(XDP_PASS);
        });
        let mut running = Running::new(program.unwrap());
        assert_eq!(running.verdict(), XDP_PASS);
        let map = running.ebpf.map("words").unwrap();
        let map = aya::maps::Array::<_, [u32; 36]>::try_from(map).unwrap();
        let found = map.get(&0, 0).unwrap();
        let low: Vec<u32> = found[..24].iter().step_by(2).copied().collect();
        assert_eq!(low, words);
        assert_eq!(found[24..], words);
    }
}
