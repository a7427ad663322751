# A kernel whose BPF has no 64-bit atomics: the group works in user space, and says why.
replicas = start_group(accelerated=False)

with subtest("status says that the kernel takes no part, and why"):
    for report in reports():
        accelerated = report["accelerated"]
        assert accelerated["xdp"] == "off" and not accelerated["armed"], report
        assert "Linux 5.15 or later" in accelerated["why"], report

with subtest("the log says it at the start"):
    replica0.succeed("journalctl -u electrode | grep -q 'running in user space'")

with subtest("insisting is an error with a reason"):
    said = replica0.fail(
        f"electrode replica {CONFIG} --index 0 --interface eth1 --accelerate all --state-dir /tmp/insisting 2>&1",
        timeout=20,
    )
    assert "Linux 5.15 or later" in said or "in use" in said, said

with subtest("the group serves"):
    put("greeting", "hello")
    assert get("greeting") == "hello"
    said = client.succeed(f"electrode bench {CONFIG} --clients 4 --requests 200 --deadline 60 --json", timeout=60)
    assert json.loads(said)["errors"] == 0, said
    wait_for("all replicas agree", agree)
