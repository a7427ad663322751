# The bytecode in this machine's kernel, beside bpf-asm's interpreter and rbpf, all of which have to agree: the fast path's
# programs on a corpus of frames in many states of their maps (crates/dataplane/tests/kernel/corpus.rs), and random programs
# for a few seconds, of plain instructions and of the builder. A kernel that lacks 64-bit atomics can't load the fast path; it
# runs the random programs that do without.
start_all()
machine.wait_for_unit("multi-user.target")
release = machine.succeed("uname -r").strip()
old = tuple(int(number) for number in release.split(".")[:2]) < (5, 12)


def run(program, tests):
    """Runs tests by name; what they print."""
    said = machine.succeed(f"{program} --nocapture --test-threads=1 --exact {' '.join(tests)} 2>&1", timeout=20)
    assert f"{len(tests)} passed" in said, said
    # No machine has clang, whose programs are compared elsewhere.
    skipped = [line for line in said.lower().splitlines() if "skipped" in line and "no clang" not in line]
    assert not skipped, said
    return said


with subtest("random instructions end in the same state on every engine"):
    tests = [
        "the_kernel_ends_random_programs_in_the_state_of_the_interpreter",
        "all_engines_end_plain_random_programs_in_the_same_state",
    ]
    said = run("RAW_SECONDS=2 random-instructions-tests", tests)
    lacking = "this kernel lacks: atomics" in said
    assert lacking == old, said
    machine.log(said)

with subtest("random programs of the builder load, and mean the same on every engine"):
    said = run("BUILDER_SECONDS=3 random-builder-tests", ["random_programs_load_and_agree_with_rust"])
    machine.log(said)

if old:
    with subtest("the fast path is refused by name"):
        said = machine.fail("electrode doctor --interface eth1", timeout=60)
        assert "no 64-bit atomics" in said, said
else:
    with subtest("the fast path answers every frame in every state as on the other engines"):
        tests = ["corpus::every_engine_agrees_on_every_way_through_the_programs"]
        said = run("CORPUS_DAMAGED=3 dataplane-kernel-tests", tests)
        assert "the same in kernel, interpreter and rbpf" in said, said
        machine.log(said)
