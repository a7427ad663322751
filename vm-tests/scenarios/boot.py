# A machine boots, and `doctor` says of its kernel and its network card what the fast path needs: all of it from 6.1 on.
start_all()
machine.wait_for_unit("multi-user.target")
release = machine.succeed("uname -r").strip()
old = tuple(int(number) for number in release.split(".")[:2]) < (5, 12)

with subtest("doctor's verdict"):
    if old:
        said = machine.fail("electrode doctor --interface eth1", timeout=60)
        assert "no 64-bit atomics" in said, said
        assert "user space only" in said, said
    else:
        said = machine.succeed("electrode doctor --interface eth1", timeout=60)
        assert "not ok" not in said, said
        assert "The fast path can run here." in said, said

with subtest("the network card takes programs in its driver"):
    lines = [line.split() for line in said.splitlines()]
    assert ["ok", "XDP", "native"] in lines, said

with subtest("nothing is left on the interface"):
    links = machine.succeed("ip link show dev eth1")
    assert "xdp" not in links, links
