# Every program of the fast path in this machine's kernel by BPF_PROG_TEST_RUN: verdicts, frames and shared memory, frame by
# frame and against races, as crates/dataplane/tests/kernel expects them. Copies leave on veth devices.
start_all()
machine.wait_for_unit("multi-user.target")

with subtest("the programs answer frames as they do elsewhere"):
    said = machine.succeed("dataplane-kernel-tests --test-threads=2 2>&1", timeout=90)
    assert "SKIPPED" not in said, said
    print(said.strip().splitlines()[-1])
