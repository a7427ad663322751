# A backup's machine loses its power while the group works; it recovers from the others, and its kernel helps again.
replicas = start_group()
put("before", "1")
backup = (primary_of(reports()) + 1) % 3
replicas[backup].crash()

with subtest("two replicas go on without it, and no view changes"):
    view = max(report["view"] for report in reports() if report is not None)
    for number in range(10):
        put(f"without-{number}", str(number))
    assert max(report["view"] for report in reports() if report is not None) == view

with subtest("it recovers what it missed"):
    replicas[backup].start()
    replicas[backup].wait_for_unit("electrode.service")
    wait_for("all normal", lambda all_reports: all(normal(report) for report in all_reports), timeout=60)
    put("after", "1")
    wait_for("all replicas agree", agree)

with subtest("its kernel stores again"):
    wait_for("every kernel helps", lambda all_reports: all(armed(report) for report in all_reports))
    before = stored(reports()[backup])
    for number in range(5):
        put(f"again-{number}", str(number))
    wait_for("it stored", lambda all_reports: stored(all_reports[backup]) >= before + 3)
