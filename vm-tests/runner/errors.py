"""What a scenario can fail of."""


class ScenarioFailed(Exception):
    """A machine didn't do what the scenario demands; the text names machine, command and output."""


class RunnerFailed(Exception):
    """The runner itself can't go on: no QEMU, no memory, no disk space. One line."""
