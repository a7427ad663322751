# Every replica's link loses, doubles and reorders packets; nothing acknowledged is lost, and nothing happens twice.
replicas = start_group()

with subtest("clients are served over bad links"):
    for replica in replicas:
        replica.succeed("tc qdisc add dev eth1 root netem delay 2ms 1ms loss 3% duplicate 3% reorder 10%")
    for number in range(20):
        client.succeed(f"electrode client {CONFIG} --deadline 60 append counted x", timeout=60)
    said = client.succeed(f"electrode bench {CONFIG} --clients 4 --requests 100 --deadline 60 --json", timeout=90)
    assert json.loads(said)["errors"] == 0, said

with subtest("over good links all agree, and each append happened once"):
    for replica in replicas:
        replica.succeed("tc qdisc del dev eth1 root")
    wait_for("all normal", lambda all_reports: all(normal(report) for report in all_reports), timeout=60)
    assert get("counted") == "x" * 20
    wait_for("all replicas agree", agree)
    wait_for("every kernel helps", lambda all_reports: all(armed(report) for report in all_reports))
