# Every program of the fast path in this machine's kernel by BPF_PROG_TEST_RUN: verdicts, frames and shared memory, frame by
# frame, as crates/dataplane/tests/kernel expects them; copies leave on veth devices. A sample of those tests, one or two of
# each kind: emulated, each takes seconds, and the kernel at hand runs all of them.
start_all()
machine.wait_for_unit("multi-user.target")

with subtest("the programs answer frames as they do elsewhere"):
    listed = machine.succeed("dataplane-kernel-tests --list").splitlines()
    names = [line.removesuffix(": test") for line in listed if line.endswith(": test")]
    kinds = sorted({name.split("::")[0] for name in names})
    assert {"broadcast", "prepare", "prepare_ok", "refused"} <= set(kinds), kinds
    sample = [name for kind in kinds for name in [each for each in names if each.startswith(f"{kind}::")][:2]]
    said = machine.succeed(f"dataplane-kernel-tests --exact --test-threads=2 {' '.join(sample)} 2>&1", timeout=90)
    assert f"{len(sample)} passed" in said, said
    assert "SKIPPED" not in said, said
