# One replica after the other changes from the previous build to this one, under load.
start_all()
begin_anew("electrode-binary previous && systemctl start --no-block electrode")
replicas = start_group()

# Each write has a key of its own; a write that isn't answered is a failure, whatever became of it.
load = f"""
number=0
while [ ! -e /tmp/enough ]; do
    number=$((number + 1))
    electrode client {CONFIG} --deadline 60 put load-$number x || echo $number >> /tmp/unanswered
done
echo $number > /tmp/written
"""
client.succeed("rm -f /tmp/enough /tmp/unanswered /tmp/written")
in_background(load)
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

with subtest("every write was answered, and is there"):
    client.succeed("touch /tmp/enough")
    client.wait_until_succeeds("test -s /tmp/written", timeout=60)
    client.fail("cat /tmp/unanswered")
    written = client.succeed("cat /tmp/written").strip()
    assert client.succeed(f"electrode client {CONFIG} --deadline 60 count load-").strip() == written
    wait_for("all replicas agree", agree)
