# Stands before every scenario, here and under the NixOS driver. Replicas are asked from the machine `client`.
import json
import shlex

CONFIG = "--config /etc/electrode/config.txt"


def reports():
    """What each replica says of itself; None for one that is silent."""
    _, said = client.execute(f"electrode status {CONFIG} --json --timeout-ms 3000")
    answers = json.loads(said)["replicas"]
    return [answer if answer["reachable"] else None for answer in answers]


def wait_for(what, holds, timeout=30):
    """Waits until `holds` is true of the reports."""
    latest = []

    def try_once(_last):
        latest[:] = [reports()]
        return holds(latest[0])

    try:
        retry(try_once, timeout)
    except Exception as error:
        raise Exception(f"{what}: {json.dumps(latest)[:6000]}") from error
    return latest[0]


def normal(report):
    return report is not None and report["status"] == "normal"


def armed(report):
    return normal(report) and report["accelerated"]["armed"]


def primary_of(all_reports):
    """The index of the primary of the highest view."""
    views = [report["view"] for report in all_reports if normal(report)]
    return max(views) % len(all_reports)


def agree(all_reports):
    """Whether all replicas are normal in one view, with the same ops and the same state."""
    if not all(normal(report) for report in all_reports):
        return False
    keys = ("view", "op", "commit", "log_digest", "state_digest")
    return len({tuple(report[key] for key in keys) for report in all_reports}) == 1


def put(key, value, deadline=60):
    client.succeed(f"electrode client {CONFIG} --deadline {deadline} put {key} {value}", timeout=30)


def get(key, deadline=60):
    return client.succeed(f"electrode client {CONFIG} --deadline {deadline} get {key}", timeout=30).strip()


def in_background(script):
    """Has the client run a script beside what follows; what it prints is in /tmp/background."""
    client.succeed(f"(setsid bash -c {shlex.quote(script)} < /dev/null > /tmp/background 2>&1 &)")


def start_group(accelerated=True):
    """All machines up, all replicas normal, and helped by their kernels after the first op."""
    start_all()
    replicas = [machine for machine in machines if machine.name.startswith("replica")]
    for replica in replicas:
        replica.wait_for_unit("electrode.service")
    wait_for("a new group", lambda all_reports: all(normal(report) for report in all_reports))
    put("first", "1")
    if accelerated:
        wait_for("every kernel helps", lambda all_reports: all(armed(report) for report in all_reports))
    return replicas


def begin_anew(command):
    """Stops every replica, forgets what all of them know, and has each run a command that starts its service."""
    replicas = [machine for machine in machines if machine.name.startswith("replica")]
    # What is just loading its programs ends at once only when it is killed.
    for replica in replicas:
        replica.execute("systemctl kill --signal=KILL electrode")
    for replica in replicas:
        replica.succeed("systemctl stop electrode && rm -rf /var/lib/electrode/*")
    for replica in replicas:
        replica.succeed(command)


def stored(report):
    """Prepares that the replica's kernel stored and acknowledged."""
    return report["driver"]["stored"]
