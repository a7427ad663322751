"""One QEMU process: its arguments, its monitor, its root shell, its disk."""

import json
import os
import socket
import subprocess
import time
from pathlib import Path

from errors import RunnerFailed, ScenarioFailed
from process import spawn

# Sparse; what a replica keeps is small.
DISK_MIB = 64


class Qemu:
    """A running virtual machine. The kernel ends it when the runner ends."""

    def __init__(self, plan, name: str, number: int, names: list[str], cable, log: Path) -> None:
        self.disk = plan.folder / f"{name}.disk"
        if not self.disk.exists():
            make_disk(self.disk)
        self._monitor_file = None
        self._used = 0.0
        self.monitor, monitor = socket.socketpair()
        self.shell, shell = socket.socketpair()
        words = [
            "console=ttyS0",
            "panic=-1",
            "quiet",
            "loglevel=4",
            "rdinit=/init",
            "net.ifnames=0",
            "mitigations=off",
            "nokaslr",
            "random.trust_cpu=on",
            # On a busy host the emulated timer may be late for the kernel's check, which panics then.
            "no_timer_check",
            f"electrode.machine={name}",
            f"electrode.machines={','.join(names)}",
            f"electrode.slowness={plan.slowness}",
        ]
        accelerator = {
            "tcg": ["-accel", "tcg,thread=multi", "-cpu", "max,-cx16"],
            "kvm": ["-accel", "kvm", "-cpu", "host"],
        }[plan.accelerator]
        arguments = [
            plan.qemu,
            "-name", name,
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display", "none",
            "-machine", "q35",
            *accelerator,
            "-smp", str(plan.processors(names)),
            "-m", str(plan.memory_mib),
            "-kernel", str(plan.image),
            "-initrd", str(plan.archive),
            "-append", " ".join(words),
            "-chardev", f"file,id=serial,path={log},append=on",
            "-serial", "chardev:serial",
            "-chardev", f"socket,id=monitor,fd={monitor.fileno()}",
            "-mon", "chardev=monitor,mode=control",
            "-device", "virtio-serial-pci",
            "-chardev", f"socket,id=shell,fd={shell.fileno()}",
            "-device", "virtconsole,chardev=shell",
            "-drive", f"file={self.disk},format=raw,if=none,id=disk,cache=unsafe",
            "-device", "virtio-blk-pci,drive=disk",
            "-netdev", f"socket,id=net,fd={cable.fileno()}",
            "-device", f"virtio-net-pci,id=card,netdev=net,mac=52:54:00:12:01:{number:02x},romfile=",
        ]  # fmt: skip
        fds = [monitor.fileno(), shell.fileno(), cable.fileno()]
        with open(log, "ab") as output:
            try:
                self.process = spawn(arguments, fds, output)
            except OSError as error:
                raise RunnerFailed(f"{plan.qemu} can't be started: {error}") from error
        for end in (monitor, shell):
            end.close()

    def command(self, name: str, /, **arguments) -> dict:
        """A command of QEMU's monitor (QMP)."""
        if self._monitor_file is None:
            self.monitor.settimeout(60)
            self._monitor_file = self.monitor.makefile("rw", encoding="utf-8")
            self._monitor_file.readline()
            self._ask({"execute": "qmp_capabilities"})
        return self._ask({"execute": name, "arguments": arguments})

    def _ask(self, question: dict) -> dict:
        try:
            self._monitor_file.write(json.dumps(question) + "\n")
            self._monitor_file.flush()
            while True:
                line = self._monitor_file.readline()
                if not line:
                    raise ScenarioFailed("QEMU closed its monitor")
                answer = json.loads(line)
                if "return" in answer:
                    return answer["return"]
                if "error" in answer:
                    raise ScenarioFailed(f"QEMU refuses {question}: {answer['error']}")
        except OSError as error:
            raise ScenarioFailed(f"QEMU's monitor doesn't answer: {error}") from error

    def cpu_seconds(self) -> float:
        """Seconds of processor time that it has used, as far as is known of one that has ended."""
        try:
            with open(f"/proc/{self.process.pid}/stat", encoding="utf-8") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            self._used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except OSError:
            pass
        return self._used

    def running(self) -> bool:
        return self.process.poll() is None

    def wait(self, seconds: float) -> bool:
        """Whether the process has ended after so long at most."""
        try:
            self.process.wait(seconds)
            return True
        except subprocess.TimeoutExpired:
            return False

    def kill(self) -> None:
        """The power goes."""
        if self.running():
            self.process.kill()
        self.process.wait()
        for end in (self.monitor, self.shell):
            end.close()


def make_disk(path: Path) -> None:
    """An empty file system in a sparse file."""
    try:
        with open(path, "wb") as file:
            os.truncate(file.fileno(), DISK_MIB << 20)
        made = subprocess.run(
            ["mke2fs", "-q", "-F", "-t", "ext4", str(path)], capture_output=True, text=True
        )
    except OSError as error:
        raise RunnerFailed(f"{path} can't be made: {error}") from error
    if made.returncode != 0:
        raise RunnerFailed(f"mke2fs {path}: {made.stderr.strip()}")


def deadline(seconds: float) -> float:
    return time.monotonic() + seconds
