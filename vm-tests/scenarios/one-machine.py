# Groups of replicas in namespaces of one machine, joined by a bridge: with the kernel's help, and without it where the
# kernel is too old for that.
start_all()
machine.wait_for_unit("multi-user.target")
release = machine.succeed("uname -r").strip()
old = tuple(int(number) for number in release.split(".")[:2]) < (5, 12)

demo = "electrode demo --clients 1 --seconds 2 --rounds 1 --json 2>&1"
if old:
    with subtest("the demo works in user space, and says that the kernel took no part"):
        said = machine.fail(demo, timeout=60)
        assert "user space" in said or "refuses" in said, said
else:
    with subtest("a group commits by the kernel, loses its primary, and is helped again"):
        tests = "kernel::the_kernel_stores kernel::a_killed_primary kernel::what_is_longer"
        said = machine.succeed(f"replica-group-tests --test-threads=1 {tests} 2>&1", timeout=60)
        assert "3 passed" in said, said
        assert "SKIPPED" not in said, said
