//! Signed numbers and division, of every width.

use bpf_asm::builder::{Int, XDP_DROP, XDP_TX, xdp, xdp_for};
use bpf_asm::field;
use bpf_asm::program::Program;
use bpf_asm::target::Target;
use zerocopy::byteorder::little_endian::U64;

use crate::kernel::{Running, is_root, probed};

#[repr(C)]
struct Numbers {
    a: U64,
    b: U64,
    quotient: U64,
    remainder: U64,
    negative: U64,
    shifted: U64,
    less: U64,
}

/// Takes the numbers as `T` and puts the results back as 64 bits.
fn program<T: SignedOrNot + Int + From<bool>>(target: &Target) -> Program {
    xdp_for(target, "divide", |f| {
        let packet = f.packet();
        let view = packet.view::<Numbers>(0, || f.ret(XDP_DROP));
        let number =
            |field: bpf_asm::builder::Field<Numbers, U64>| view.load(field).to_native().cast::<T>();
        let (a, b) = (number(field!(Numbers, a)), number(field!(Numbers, b)));
        let results = [
            (field!(Numbers, quotient), a / b),
            (field!(Numbers, remainder), a % b),
            (field!(Numbers, negative), f.value(T::zero()) - a),
            (field!(Numbers, shifted), a >> T::three()),
            (field!(Numbers, less), a.lt(b).to_val::<T>()),
        ];
        for (field, value) in results {
            view.store(field, value.cast::<u64>().to_le());
        }
        f.ret(XDP_TX);
    })
    .unwrap()
}

trait SignedOrNot: Sized + Copy {
    fn of(value: u64) -> Self;
    fn zero() -> Self;
    fn three() -> Self;
    /// What the kernel computes, by RFC 9669.
    fn results(a: Self, b: Self) -> [u64; 5];
}

macro_rules! numbers {
    ($($type:ty)*) => {$(
        impl SignedOrNot for $type {
            fn of(value: u64) -> Self {
                value as $type
            }
            fn zero() -> Self {
                0
            }
            fn three() -> Self {
                3
            }
            fn results(a: Self, b: Self) -> [u64; 5] {
                let (quotient, remainder) = if b == 0 {
                    (0, a)
                } else {
                    (a.wrapping_div(b), a.wrapping_rem(b))
                };
                let numbers = [quotient, remainder, (0 as $type).wrapping_sub(a), a >> 3, <$type>::from(a < b)];
                numbers.map(|number| number as u64)
            }
        }
    )*};
}
numbers! { u8 u16 u32 u64 i8 i16 i32 i64 }

fn check<T: SignedOrNot + Int + From<bool>>(target: &Target) {
    const VALUES: [u64; 14] = [
        0,
        1,
        2,
        7,
        0x7f,
        0x80,
        0xff,
        0x7fff,
        0x8000,
        0x7fff_ffff,
        0x8000_0000,
        1 << 63,
        u64::MAX,
        u64::MAX - 6,
    ];
    let mut running = Running::new(program::<T>(target));
    for a in VALUES {
        for b in VALUES {
            let packet = [a.to_le_bytes(), b.to_le_bytes()].concat();
            let packet = [packet, vec![0; 40]].concat();
            let (verdict, out) = running.run(&packet);
            assert_eq!(verdict, XDP_TX);
            let word = |at: usize| u64::from_le_bytes(out[at * 8..][..8].try_into().unwrap());
            let found = [2, 3, 4, 5, 6].map(word);
            let name = std::any::type_name::<T>();
            assert_eq!(
                found,
                T::results(T::of(a), T::of(b)),
                "{name}: {a:#x}, {b:#x}"
            );
        }
    }
}

#[test]
fn division_shift_and_comparison_are_those_of_the_type() {
    if !is_root() {
        return;
    }
    for target in [Target::common(), probed()] {
        check::<u8>(&target);
        check::<u16>(&target);
        check::<u32>(&target);
        check::<u64>(&target);
        check::<i8>(&target);
        check::<i16>(&target);
        check::<i32>(&target);
        check::<i64>(&target);
    }
}

#[test]
fn constants_are_folded_away() {
    let folded = xdp("folded", |f| {
        let seven = f.value(-21i32) / -3i32;
        let minus = f.value(-7i64) % 4i64;
        f.if_(minus.eq(-3i64), || f.ret((seven - 5i32).cast::<u32>()));
        f.ret(XDP_DROP);
    })
    .unwrap();
    assert_eq!(folded.main.insns.len(), 2, "r0 = 2; exit");
    if is_root() {
        assert_eq!(Running::new(folded).verdict(), 2);
    }
}

#[test]
fn division_by_a_negative_constant_is_right_in_every_instruction_set() {
    if !is_root() {
        return;
    }
    for target in [Target::common(), probed()] {
        let program = xdp_for(&target, "constant", |f| {
            let packet = f.packet();
            let view = packet.view::<Numbers>(0, || f.ret(XDP_DROP));
            let a = view.load(field!(Numbers, a)).to_native().cast::<i64>();
            for (field, value) in [
                (field!(Numbers, quotient), a / -7i64),
                (field!(Numbers, remainder), a % -7i64),
                (field!(Numbers, negative), -a),
                (field!(Numbers, shifted), a / i64::from(i32::MIN)),
                (field!(Numbers, less), a % i64::from(i32::MIN)),
            ] {
                view.store(field, value.cast::<u64>().to_le());
            }
            f.ret(XDP_TX);
        });
        let mut running = Running::new(program.unwrap());
        for a in [
            0,
            1,
            -1,
            6,
            -50,
            i64::MAX,
            i64::MIN,
            1 << 31,
            -(1 << 31),
            5 << 31,
        ] {
            let mut packet = [0; 56];
            packet[..8].copy_from_slice(&a.to_le_bytes());
            let (_, out) = running.run(&packet);
            let word = |at: usize| i64::from_le_bytes(out[at * 8..][..8].try_into().unwrap());
            let min = i64::from(i32::MIN);
            assert_eq!(
                [2, 3, 4, 5, 6].map(word),
                [a / -7, a % -7, a.wrapping_neg(), a / min, a % min],
                "{a}"
            );
        }
    }
}
