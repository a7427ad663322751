# In disk mode the power of all machines goes at once, under load; whatever was acknowledged is there afterwards.
# Needs a build that knows --durability disk.
start_all()
begin_anew("electrode-options --durability disk")
replicas = start_group()

load = f"""
number=0
while [ ! -e /tmp/enough ]; do
    number=$((number + 1))
    electrode client {CONFIG} --deadline 600 put cut-$number x && echo $number >> /tmp/answered
done
touch /tmp/ended
"""
client.succeed("rm -f /tmp/enough /tmp/ended && : > /tmp/answered")
in_background(load)

with subtest("all replicas lose their power, and come back by themselves"):
    client.wait_until_succeeds("test $(wc -l < /tmp/answered) -ge 10", timeout=60)
    for replica in replicas:
        replica.crash()
    for replica in replicas:
        replica.start()
    for replica in replicas:
        # The root file system may be in memory: the option is given again; the data are on the disk.
        replica.succeed("electrode-options --durability disk")
    for replica in replicas:
        replica.wait_for_unit("electrode.service")
    wait_for("all normal", lambda all_reports: all(normal(report) for report in all_reports), timeout=90)

with subtest("they go on"):
    answered = client.succeed("wc -l < /tmp/answered").strip()
    client.wait_until_succeeds(f"test $(wc -l < /tmp/answered) -ge $(({answered} + 5))", timeout=60)

with subtest("every acknowledged write is there"):
    client.succeed("touch /tmp/enough")
    client.wait_until_succeeds("test -e /tmp/ended", timeout=60)
    there = f"electrode client {CONFIG} --deadline 60 get cut-$number"
    client.succeed(f"for number in $(cat /tmp/answered); do test \"$({there})\" = x; done", timeout=60)
    wait_for("all replicas agree", agree)
