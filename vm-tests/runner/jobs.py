"""Jobs side by side: the machines of one kernel and one topology are a job, in a process of its own, because the signal that
ends QEMU with the runner is tied to the thread that started it."""

import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from errors import RunnerFailed
from process import die_with_parent


@dataclass
class Job:
    """Something that needs so many processors, and returns what failed."""

    processors: int
    run: Callable[[], list[str]]


def run_side_by_side(jobs: list[Job], processors: int) -> list[str]:
    """Runs the jobs in their order, as many at once as there are processors for; what failed."""
    waiting, running, failures = list(jobs), {}, []
    while waiting or running:
        busy = sum(job.processors for job, _ in running.values())
        if waiting and (not running or busy + waiting[0].processors <= processors):
            job = waiting.pop(0)
            child, answer = start(job)
            running[child] = (job, answer)
            continue
        child, status = os.wait()
        _, answer = running.pop(child)
        with os.fdopen(answer, encoding="utf-8") as file:
            said = file.read()
        if os.waitstatus_to_exitcode(status) != 0 or not said:
            # It has said why. The others end with this process.
            raise RunnerFailed("")
        failures += json.loads(said)
    return failures


def start(job: Job) -> tuple[int, int]:
    """Starts the job's process; its id, and where its answer will be read."""
    answer, said = os.pipe()
    parent = os.getpid()
    sys.stdout.flush()
    child = os.fork()
    if child != 0:
        os.close(said)
        return child, answer
    code = 1
    try:
        die_with_parent()
        if os.getppid() == parent:
            os.close(answer)
            failures = job.run()
            os.write(said, json.dumps(failures).encode())
            code = 0
    except RunnerFailed as error:
        print(f"vm: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        # The parent says it.
        pass
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
