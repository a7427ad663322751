"""Runs scenario scripts with what the NixOS test driver gives them: machines by their names, start_all, subtest."""

import contextlib
import time
import traceback

from errors import ScenarioFailed
from machine import Machine
from network import Switch


class Machines:
    """The machines of one topology, which scenarios use one after the other."""

    def __init__(self, plan, names: list[str]) -> None:
        self.plan = plan
        self.names = names
        self._switch = Switch()
        self.machines = {name: Machine(plan, self._switch, name, names) for name in names}

    def names_for_scripts(self) -> dict:
        """What a scenario finds, by name."""
        progress = self.plan.progress

        def start_all() -> None:
            for machine in self.machines.values():
                machine.start()
            for machine in self.machines.values():
                machine.connect()

        @contextlib.contextmanager
        def subtest(text: str):
            with progress.nested(f"subtest: {text}"):
                try:
                    yield
                except Exception as error:
                    raise ScenarioFailed(f"subtest \"{text}\": {error}") from error

        def join_all() -> None:
            for machine in self.machines.values():
                machine.wait_for_shutdown()

        return {
            "machines": list(self.machines.values()),
            "start_all": start_all,
            "join_all": join_all,
            "subtest": subtest,
            "retry": self._retry,
            "log": progress,
            **self.machines,
        }

    @staticmethod
    def run(name: str, source: str, names: dict) -> None:
        """Runs one script; raises when it fails."""
        code = compile(source, f"vm-tests/scenarios/{name}.py", "exec")
        exec(code, names)

    def _retry(self, wanted, timeout: float = 900) -> None:
        end = time.monotonic() + timeout * self.plan.slowness
        while not wanted(time.monotonic() > end):
            if time.monotonic() > end:
                raise ScenarioFailed("what was waited for didn't come")
            time.sleep(0.5)

    def cpu_seconds(self) -> float:
        return sum(machine.cpu_seconds() for machine in self.machines.values())

    def reset(self) -> None:
        for machine in self.machines.values():
            machine.reset()

    def stop(self) -> None:
        for machine in self.machines.values():
            machine.stop()
        self._switch.close()


def where(error: Exception) -> str:
    """The line of the scenario in which it failed."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if "vm-tests/scenarios/" in frame.filename:
            return f"{frame.filename}:{frame.lineno}"
    if error.__cause__ is not None:
        return where(error.__cause__)
    return "the runner"
