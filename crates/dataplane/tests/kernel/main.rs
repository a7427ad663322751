//! The four programs in the real kernel, run by BPF_PROG_TEST_RUN on frames that are built here; `broadcast`, whose copies
//! really leave, between network namespaces. What must hold is docs/fast-path.md; the rules' numbers (R1 to R10) are from there.
//!
//! Beside the kernel, bpf-asm's interpreter and rbpf run the same programs on the same frames and maps ([`shadow`]): what
//! differs fails the test. So do the same programs in C, in the kernel, where there is a clang to compile them ([`clang`]).
//!
//! Needs root; without it every test says so and passes. "Fault n" names one of ten faults of a published prototype of this
//! design; each has a test here where one replica's kernel part is enough to show it:
//! 1 kept acknowledging for a deposed primary; 2 acknowledged what it had no room to store; 3 dropped every ack but the completing
//! one, also after a resend; 4 committed on one ack; 5 sent a Prepare again in a form that was never stored; 6 stayed off after
//! a gap; 7 passed packets on with their head moved; 8 dropped Prepares of a newer view; 9 took Prepares without a sign of life;
//! 10 believed packets that it hadn't checked.

mod broadcast;
mod clang;
mod corpus;
mod foreign;
mod frame;
mod group;
mod mutation;
mod objects;
mod prepare;
mod prepare_ok;
mod races;
mod refused;
mod shadow;
mod waking;
