# Three replicas and a client on machines of their own. The programs run in the drivers of virtio network cards.
replicas = start_group()

with subtest("every kernel takes part, in its driver"):
    for report in reports():
        assert report["accelerated"]["xdp"] == "native", report
        assert report["accelerated"]["tc"] in ("tcx", "clsact"), report

with subtest("what was written is read"):
    put("greeting", "hello")
    assert get("greeting") == "hello"
    client.fail(f"electrode client {CONFIG} --deadline 60 get nothing", timeout=30)

with subtest("requests under load go through the kernels"):
    before = reports()
    said = client.succeed(f"electrode bench {CONFIG} --clients 4 --requests 200 --deadline 60 --json", timeout=60)
    assert json.loads(said)["errors"] == 0, said
    after = wait_for("all replicas agree", agree)
    primary = primary_of(after)
    for index, report in enumerate(after):
        gained = stored(report) - stored(before[index])
        # Four clients' requests gather into Prepares of up to four.
        assert index == primary or gained >= 20, (index, gained, report)
    counters = after[primary]["counters"]
    assert sum(counters["broadcast"].values()) > 0, counters
    quorums = counters["prepare_ok"].get("completed", 0) + counters["prepare_ok"].get("completed_noticed", 0)
    assert quorums >= 20, counters

with subtest("programs end with their replica"):
    replicas[2].succeed("systemctl stop electrode")
    links = replicas[2].succeed("ip link show dev eth1")
    assert "xdp" not in links, links
    replicas[2].succeed("systemctl start electrode")
    wait_for("it recovers and is helped again", lambda all_reports: all(armed(report) for report in all_reports))
