"""Child processes that end with the runner, however it ends."""

import ctypes
import os
import signal
import subprocess

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(sig: int = signal.SIGKILL) -> None:
    """Has the kernel send this process `sig` when its parent ends."""
    if _libc.prctl(PR_SET_PDEATHSIG, sig, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def spawn(arguments: list[str], fds: list[int], output) -> subprocess.Popen:
    """Starts a process in a group of its own, so that Ctrl-C reaches the runner alone; it is killed when the runner ends.

    Linux ties that signal to the thread that starts the process: call this from the main thread.
    """
    parent = os.getpid()

    def prepare() -> None:
        os.setpgid(0, 0)
        die_with_parent()
        if os.getppid() != parent:
            os._exit(1)

    return subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        pass_fds=fds,
        preexec_fn=prepare,
    )
