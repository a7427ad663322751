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
from pathlib import Path

from errors import RunnerFailed, ScenarioFailed
from process import die_with_parent
from progress import Progress
from scenario import Machines, where

# Of each machine.
MEMORY_MIB = 512


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
    progress = Progress(verbose="--verbose" in sys.argv[2:])
    qemu = shutil.which("qemu-system-x86_64")
    if qemu is None:
        raise RunnerFailed("qemu-system-x86_64 is missing (package qemu-system-x86)")
    failures = []
    budget = plan["budget"]
    end = None if budget is None else time.monotonic() + budget
    for kernel in plan["kernels"]:
        folder = Path(plan["folder"]) / kernel["name"]
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        common = Plan(
            qemu=qemu,
            image=Path(kernel["image"]),
            archive=Path(kernel["archive"]),
            folder=folder,
            slowness=plan["slowness"],
            accelerator=plan["accelerator"],
            progress=progress,
        )
        failed = run_kernel(common, kernel, plan, end)
        failures += failed
        for disk in folder.glob("*.disk"):
            disk.unlink()
        if not failed:
            shutil.rmtree(folder, ignore_errors=True)
    for failure in failures:
        print(f"FAILED {failure}", flush=True)
    return 1 if failures else 0


def run_kernel(common: Plan, kernel: dict, plan: dict, end: float | None) -> list[str]:
    """Scenarios with the same machines run one after the other without a boot in between."""
    failed = []
    by_machines: dict[tuple[str, ...], list[str]] = {}
    for name in kernel["scenarios"]:
        by_machines.setdefault(tuple(plan["scenarios"][name]["machines"]), []).append(name)
    for names, scenarios in by_machines.items():
        machines = Machines(common, list(names))
        try:
            for number, name in enumerate(scenarios):
                label = f"{name} on {kernel['name']}"
                started = time.monotonic()
                if end is not None and started > end:
                    common.progress.line(f"SKIPPED {label}: no time left for it on this machine")
                    continue
                try:
                    if number > 0:
                        machines.reset()
                    found = machines.names_for_scripts()
                    for part in ("prelude", name):
                        source = (Path(plan["scripts"]) / f"{part}.py").read_text(encoding="utf-8")
                        machines.run(part, source, found)
                    common.progress.line(f"ok      {label}: {time.monotonic() - started:.0f} s")
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
                    machines = Machines(common, list(names))
        finally:
            machines.stop()
    return failed


if __name__ == "__main__":
    try:
        code = main()
    except RunnerFailed as error:
        print(f"vm: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("vm: interrupted; the machines are off", file=sys.stderr)
        code = 130
    sys.stdout.flush()
    # Threads hold nothing that matters.
    os._exit(code) if code else sys.exit(0)
