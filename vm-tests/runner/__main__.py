"""Runs scenarios in virtual machines by plain QEMU, as a plan from `cargo xtask vm` says. Needs no rights and no network.

The plan is a JSON file:
  kernels      [{name, image, archive, scenarios: [name]}]
  scenarios    the table of vm-tests/scenarios.json
  folder       where disks and serial logs are while it runs; logs stay there when something fails
  scripts      where the scenarios are
  slowness     how much slower than real machines the virtual ones are
  accelerator  tcg or kvm
  budget       seconds after which no more scenario begins; those left out are named. None: no end
"""

import json
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from errors import RunnerFailed, ScenarioFailed
from jobs import Job, run_side_by_side
from process import die_with_parent
from progress import Progress
from scenario import Machines, where

# Of each machine.
MEMORY_MIB = 512

# What jobs share. Machines on their own are emulated two at a time at least: each waits a good deal.
PROCESSORS = max(2, os.cpu_count() or 2)


@dataclass
class Plan:
    """What all machines on one kernel have in common."""

    qemu: str
    image: Path
    archive: Path
    folder: Path
    slowness: float
    accelerator: str
    progress: Progress
    memory_mib: int = MEMORY_MIB

    def processors(self, names: list[str]) -> int:
        # A machine on its own has replicas that run at the same time.
        return 2 if len(names) == 1 else 1


def main() -> int:
    die_with_parent(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with open(sys.argv[1], encoding="utf-8") as file:
        plan = json.load(file)
    began = time.monotonic()
    qemu = shutil.which("qemu-system-x86_64")
    if qemu is None:
        raise RunnerFailed("qemu-system-x86_64 is missing (package qemu-system-x86)")
    budget = plan["budget"]
    end = None if budget is None else began + budget
    jobs = []
    for kernel in plan["kernels"]:
        by_machines: dict[tuple[str, ...], list[str]] = {}
        for name in kernel["scenarios"]:
            by_machines.setdefault(tuple(plan["scenarios"][name]["machines"]), []).append(name)
        for names, scenarios in by_machines.items():
            common = Plan(
                qemu=qemu,
                image=Path(kernel["image"]),
                archive=Path(kernel["archive"]),
                folder=Path(plan["folder"]) / kernel["name"] / "-".join(names),
                slowness=plan["slowness"],
                accelerator=plan["accelerator"],
                progress=Progress("--verbose" in sys.argv[2:], kernel["name"], began),
            )
            run = partial(run_scenarios, common, kernel["name"], list(names), scenarios, plan["scripts"], end)
            jobs.append(Job(processors=min(len(names), PROCESSORS), run=run))
    # One machine of each kernel first: these can share the processors, and are what every kernel has to pass.
    jobs.sort(key=lambda job: job.processors)
    failures = run_side_by_side(jobs, PROCESSORS)
    for failure in failures:
        print(f"FAILED {failure}", flush=True)
    return 1 if failures else 0


def run_scenarios(
    common: Plan, kernel: str, names: list[str], scenarios: list[str], scripts: str, end: float | None
) -> list[str]:
    """Runs scenarios with the same machines one after the other, without a boot in between; those that failed."""
    shutil.rmtree(common.folder, ignore_errors=True)
    try:
        common.folder.mkdir(parents=True)
    except OSError as error:
        raise RunnerFailed(f"{common.folder} can't be made: {error}") from error
    failed = []
    machines = Machines(common, names)
    try:
        for number, name in enumerate(scenarios):
            label = f"{name} on {kernel}"
            started, used = time.monotonic(), machines.cpu_seconds()
            if end is not None and started > end:
                common.progress.line(f"SKIPPED {label}: no time left for it on this machine")
                continue
            try:
                if number > 0:
                    machines.reset()
                found = machines.names_for_scripts()
                for part in ("prelude", name):
                    source = (Path(scripts) / f"{part}.py").read_text(encoding="utf-8")
                    machines.run(part, source, found)
                seconds, processor = time.monotonic() - started, machines.cpu_seconds() - used
                common.progress.line(f"ok      {label}: {seconds:.0f} s ({processor:.0f} s of processor time)")
            except Exception as error:
                if isinstance(error, RunnerFailed):
                    raise
                failed.append(label)
                kind = "" if isinstance(error, ScenarioFailed) else f"{type(error).__name__}: "
                common.progress.line(
                    f"FAILED  {label}, at {where(error)}: {kind}{error}\nserial logs: {common.folder}"
                )
                # What state the machines are in is unknown: fresh ones for the next.
                machines.stop()
                for disk in common.folder.glob("*.disk"):
                    disk.unlink()
                machines = Machines(common, names)
    finally:
        machines.stop()
        for disk in common.folder.glob("*.disk"):
            disk.unlink()
    if not failed:
        shutil.rmtree(common.folder, ignore_errors=True)
    return failed


if __name__ == "__main__":
    try:
        code = main()
    except RunnerFailed as error:
        # A job says it itself.
        if str(error):
            print(f"vm: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("vm: interrupted; the machines are off", file=sys.stderr)
        code = 130
    sys.stdout.flush()
    # Threads hold nothing that matters.
    os._exit(code) if code else sys.exit(0)
