//! What the verifier's well-known complaints mean, and what to write instead.

/// A piece of a complaint, and the advice on it; the first that fits is given.
const ADVICE: &[(&str, &str)] = &[
    (
        "!read_ok",
        "this register holds nothing here. Write it first, on every path; calls clobber r1 to r5, and r0 has to be set before exit",
    ),
    (
        "invalid access to packet",
        "the packet was not shown to reach that far. Compare a pointer behind the last byte with data_end, and leave if it is greater; \
         a helper that moves the packet makes all of this necessary again",
    ),
    (
        "_or_null'",
        "a look-up may find nothing. Compare its result with 0 before it is used",
    ),
    (
        "invalid access to map value",
        "the access is not inside of the map's value. Bound the offset by a comparison or a mask before it is added",
    ),
    (
        "invalid read from stack",
        "these bytes of the stack were not written on every path. Write all of them before a helper or a load reads them",
    ),
    (
        "invalid indirect read from stack",
        "a helper reads stack bytes that were not written. Zero the padding of keys and values too",
    ),
    (
        "combined stack size",
        "the frames of all functions that call each other have 512 bytes together. Keep large values in a per-CPU array",
    ),
    (
        "invalid write to stack",
        "the stack ends 512 bytes below r10, and stores to it have to be whole",
    ),
    (
        "infinite loop detected",
        "nothing changes from one round of this loop to the next. Count rounds up to a bound",
    ),
    (
        "back-edge",
        "this kernel takes no loops here. Unroll the loop or use bpf_loop",
    ),
    (
        "BPF program is too large",
        "the verifier walked a million instructions. Fewer branches in loops, or functions called by bpf_loop, make that less",
    ),
    (
        "sequence of 8193 jumps",
        "there are too many undecided branches on one path. Make the loop shorter, or use bpf_loop",
    ),
    (
        "unreachable insn",
        "no path leads to an instruction. Take it out, or the jump around it",
    ),
    ("jump out of range", "a jump leaves its function"),
    (
        "R0 is not a known value",
        "programs of this kind return one of a few numbers. Return a constant",
    ),
    (
        "At program exit the register R0",
        "programs of this kind return one of a few numbers. Return a constant",
    ),
    (
        "program of this type cannot use helper",
        "this hook has no such helper; the helper's documentation names the hooks that do",
    ),
    (
        "unknown func",
        "this kernel, or this hook, has no such helper",
    ),
    (
        "cannot call GPL-restricted function",
        "this helper is for programs under the GPL. Give the object a licence such as `GPL` or `Dual MIT/GPL`",
    ),
    (
        "unknown opcode",
        "this kernel is older than the instruction. Build for a target without it",
    ),
    (
        "BPF_LDX uses reserved fields",
        "this kernel is older than the instruction. Build for a target without it",
    ),
    (
        "BPF_ALU uses reserved fields",
        "this kernel is older than the instruction. Build for a target without it",
    ),
    (
        "BPF_MOV uses reserved fields",
        "this kernel is older than the instruction. Build for a target without it",
    ),
    (
        "Unreleased reference",
        "a record or an object that was taken is not given back on this path. Submit or discard it before every exit",
    ),
    (
        "subtraction from stack pointer prohibited",
        "add a negative number to a stack pointer instead",
    ),
    (
        "pointer arithmetic",
        "only pointers to packets, maps and the stack can be moved, and by numbers with bounds",
    ),
    (
        "unbounded memory access",
        "the offset has no upper bound. Compare it with one, or mask it, as an unsigned number",
    ),
    (
        "math between",
        "the number that is added to this pointer is not bounded. Compare it, or mask it, as an unsigned number",
    ),
    (
        "misaligned",
        "an access of that size has to be aligned here",
    ),
    (
        "leaks addr",
        "an address of the kernel may not be stored where others can read it",
    ),
    (
        "dereference of modified ctx ptr",
        "the context is read at fixed offsets only",
    ),
    (
        "invalid bpf_context access",
        "this hook's context has no such field, or it can't be written",
    ),
];

pub(super) fn on(complaint: &[String]) -> Option<&'static str> {
    let fits = |piece: &str| complaint.iter().any(|line| line.contains(piece));
    ADVICE
        .iter()
        .find(|(piece, _)| fits(piece))
        .map(|(_, advice)| *advice)
}
