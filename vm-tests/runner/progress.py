"""What the runner says while it works: little, unless asked for more."""

import contextlib
import sys
import time


class Progress:
    def __init__(self, verbose: bool, kernel: str, started: float) -> None:
        self._verbose = verbose
        self._kernel = kernel
        self._started = started
        self._depth = 0

    def line(self, text: str) -> None:
        """Always said."""
        print(text, flush=True)

    def say(self, text: str) -> None:
        """Said when asked for more."""
        if self._verbose:
            passed = time.monotonic() - self._started
            print(f"  {passed:6.1f} {self._kernel}: {'  ' * self._depth}{text}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def nested(self, text: str):
        self.say(text)
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
