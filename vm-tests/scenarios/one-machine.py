# Groups of replicas in namespaces of one machine, joined by a bridge: with the kernel's help, and without it where the
# kernel is too old for that.
start_all()
machine.wait_for_unit("multi-user.target")
release = machine.succeed("uname -r").strip()
old = tuple(int(number) for number in release.split(".")[:2]) < (5, 12)

if old:
    with subtest("a group over loopback loses its primary and goes on, in user space"):
        config = "f 1\\nreplica 127.0.0.1:7701\\nreplica 127.0.0.1:7702\\nreplica 127.0.0.1:7703\\n"
        machine.succeed(f"printf '{config}' > /tmp/config.txt")
        for index in range(3):
            machine.succeed(
                f"(electrode replica --config /tmp/config.txt --index {index} --state-dir /tmp/state-{index}"
                f" --timeout-factor 10 > /tmp/log-{index} 2>&1 < /dev/null & echo $! > /tmp/pid-{index})"
            )
        ask = "electrode client --config /tmp/config.txt --deadline 60"
        machine.succeed(f"{ask} put greeting hello", timeout=20)
        machine.succeed("kill -KILL $(cat /tmp/pid-0)")
        said = machine.succeed(f"{ask} get greeting", timeout=20)
        assert said.strip() == "hello", said
        machine.succeed("grep -q 'running in user space' /tmp/log-1")
        machine.succeed("kill $(cat /tmp/pid-1) $(cat /tmp/pid-2)")
else:
    with subtest("a group commits by the kernel, loses its primary, and is helped again"):
        test = "kernel::a_killed_primary"
        said = machine.succeed(f"replica-group-tests --test-threads=1 {test} 2>&1", timeout=60)
        assert "1 passed" in said, said
        assert "SKIPPED" not in said, said
