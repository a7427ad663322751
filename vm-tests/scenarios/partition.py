# Cables are pulled: a minority can't serve, the majority goes on, and in the end all agree.
replicas = start_group()
primary = primary_of(reports())

with subtest("without the primary the others go on"):
    replicas[primary].block()
    put("majority", "1")
    assert max(report["view"] for report in reports() if report is not None) % 3 != primary

with subtest("the old primary comes back as a backup and deposes nobody"):
    view = max(report["view"] for report in reports() if report is not None)
    replicas[primary].unblock()
    after = wait_for("all normal", lambda all_reports: all(normal(report) for report in all_reports), timeout=60)
    put("together", "1")
    after = wait_for("all replicas agree", agree)
    assert after[0]["view"] == view, (view, after)

with subtest("one replica alone answers nobody"):
    alone = primary_of(after)
    others = [index for index in range(3) if index != alone]
    for index in others:
        replicas[index].block()
    client.fail(f"electrode client {CONFIG} --deadline 5 put lonely 1", timeout=30)
    for index in others:
        replicas[index].unblock()

with subtest("healed, everything written is there and every kernel helps"):
    wait_for("all normal", lambda all_reports: all(normal(report) for report in all_reports), timeout=60)
    put("healed", "1")
    for key in ("majority", "together", "healed"):
        assert get(key) == "1", key
    wait_for("all replicas agree", agree)
    wait_for("every kernel helps", lambda all_reports: all(armed(report) for report in all_reports))
