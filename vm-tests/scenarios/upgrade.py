# One replica after the other changes from the previous build to this one, under load.
start_all()
for machine in machines:
    if machine.name.startswith("replica"):
        machine.succeed("systemctl stop electrode && electrode-binary previous && systemctl start electrode")
replicas = start_group()

client.succeed(
    f"(electrode bench {CONFIG} --clients 2 --seconds 600 --deadline 60 --op put --json > /tmp/load.json 2>&1"
    " < /dev/null & echo $! > /tmp/load.pid)"
)
for index, replica in enumerate(replicas):
    with subtest(f"replica {index} changes its build"):
        before = max(report["op"] for report in reports() if report is not None)
        replica.succeed("systemctl stop electrode && electrode-binary current && systemctl start electrode")
        wait_for(
            "all normal and helped, and the load goes on",
            lambda all_reports: all(armed(report) for report in all_reports)
            and max(report["op"] for report in all_reports) > before,
            timeout=60,
        )

with subtest("the load saw no wrong and no missing reply"):
    client.succeed("kill -INT $(cat /tmp/load.pid)")
    client.wait_until_fails("kill -0 $(cat /tmp/load.pid)", timeout=30)
    wait_for("all replicas agree", agree)
