# The primary's machine loses its power; another leads, and nothing that was acknowledged is lost.
replicas = start_group()
for number in range(5):
    put(f"before-{number}", str(number))

primary = primary_of(reports())
replicas[primary].crash()

with subtest("the others elect and serve"):
    put("during", "served")
    for number in range(5):
        assert get(f"before-{number}") == str(number)
    view = max(report["view"] for report in reports() if report is not None)
    assert view % 3 != primary, view

with subtest("it comes back, recovers, and every kernel helps again"):
    replicas[primary].start()
    replicas[primary].wait_for_unit("electrode.service")
    wait_for("all normal", lambda all_reports: all(normal(report) for report in all_reports), timeout=60)
    put("after", "complete")
    wait_for("every kernel helps", lambda all_reports: all(armed(report) for report in all_reports))
    wait_for("all replicas agree", agree)
    assert get("during") == "served"
