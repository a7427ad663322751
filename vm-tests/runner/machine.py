"""A machine as scenarios see it: the methods of the NixOS test driver's machines, as far as scenarios use them."""

import base64
import shlex
import socket
import time

from errors import ScenarioFailed
from qemu import Qemu

# The default time-outs of the NixOS test driver, in seconds of a real machine.
PATIENCE = 900

# How much of a command's output is in the message of a failure, in characters.
SHOWN = 4000

READY = b"Spawning backdoor root shell..."


class Machine:
    def __init__(self, plan, switch, name: str, names: list[str]) -> None:
        self.plan = plan
        self.name = name
        self._names = names
        self._switch = switch
        self._qemu: Qemu | None = None
        self._cable = None
        self._connected = False
        self._buffer = b""
        self._started = 0.0
        self._used = 0.0
        # Its services have been stopped by `reset`: the next start starts them.
        self._reset = False
        self.serial = plan.folder / f"{name}.serial"

    # Power

    def start(self, allow_reboot: bool = False) -> None:
        del allow_reboot
        if self._qemu is not None:
            if self._reset:
                self._reset = False
                self.succeed("for unit in $(ls /etc/units); do systemctl start --no-block $unit || exit; done")
            return
        self._reset = False
        self._started = time.monotonic()
        self._cable = self._switch.port()
        number = self._names.index(self.name) + 1
        self._qemu = Qemu(self.plan, self.name, number, self._names, self._cable, self.serial)

    def connect(self) -> None:
        if self._connected:
            return
        self.start()
        end = time.monotonic() + self._scaled(30)
        while READY not in self._buffer:
            self._receive(end, "its boot")
        self._buffer = self._buffer.split(READY, 1)[1].split(b"\n", 1)[-1]
        self._connected = True
        passed = time.monotonic() - self._started
        self.log(f"booted within {passed:.1f} s ({self._live().cpu_seconds():.1f} s of processor time)")

    def crash(self) -> None:
        """The power goes, at once."""
        self.log("crash")
        self._off()

    def shutdown(self) -> None:
        """Powers off in order."""
        if self._qemu is None:
            return
        self.connect()
        self.log("shutdown")
        self._send(b"poweroff\n")
        if not self._qemu.wait(self._scaled(60)):
            raise ScenarioFailed(f"{self.name}: didn't power off{self._console()}")
        self._off()

    def reboot(self) -> None:
        self.shutdown()
        self.start()

    def wait_for_shutdown(self) -> None:
        if self._qemu is not None and not self._qemu.wait(self._scaled(60)):
            raise ScenarioFailed(f"{self.name}: didn't power off{self._console()}")
        self._off()

    @property
    def booted(self) -> bool:
        return self._qemu is not None

    def cpu_seconds(self) -> float:
        """Seconds of processor time that its emulation has used, over all boots."""
        return self._used + (self._qemu.cpu_seconds() if self._qemu is not None else 0.0)

    def _off(self) -> None:
        if self._qemu is not None:
            self._used = self.cpu_seconds()
            self._qemu.kill()
            self._switch.unplug(self._cable)
        self._qemu = None
        self._connected = False
        self._buffer = b""

    # Commands

    def execute(
        self,
        command: str,
        check_return: bool = True,
        check_output: bool = True,
        timeout: int | None = PATIENCE,
    ) -> tuple[int, str]:
        """Runs a command in bash; its status and what it wrote on standard output."""
        self.connect()
        limit = None if timeout is None else self._scaled(timeout)
        script = f"set -euo pipefail; {command}"
        line = f"bash -c {shlex.quote(script)}"
        if limit is not None:
            line = f"timeout {limit:.0f} {line}"
        if not check_output:
            self._send(f"{line}\n".encode())
            return (-2, "")
        line = f"({line}) < /dev/null | (base64 -w 0; echo)\n"
        # The guest's own time-out ends the command; this one ends waiting for a guest that hangs.
        end = time.monotonic() + (limit or self._scaled(24 * 3600)) + self._scaled(30)
        self._send(line.encode())
        output = base64.b64decode(self._line(end, command)).decode(errors="replace")
        if not check_return:
            return (-1, output)
        self._send(b"echo ${PIPESTATUS[0]}\n")
        return (int(self._line(end, command)), output)

    def succeed(self, *commands: str, timeout: int | None = PATIENCE) -> str:
        output = ""
        for command in commands:
            with self.nested(f"must succeed: {command}"):
                status, written = self.execute(command, timeout=timeout)
                if status != 0:
                    self._fail(f"`{command}` failed with status {status}", written)
                output += written
        return output

    def fail(self, *commands: str, timeout: int | None = PATIENCE) -> str:
        output = ""
        for command in commands:
            with self.nested(f"must fail: {command}"):
                status, written = self.execute(command, timeout=timeout)
                if status == 0:
                    self._fail(f"`{command}` succeeded, and must not", written)
                output += written
        return output

    def wait_until_succeeds(self, command: str, timeout: int = PATIENCE) -> str:
        return self._wait_until(command, timeout, lambda status: status == 0, "didn't succeed")

    def wait_until_fails(self, command: str, timeout: int = PATIENCE) -> str:
        return self._wait_until(command, timeout, lambda status: status != 0, "didn't fail")

    def _wait_until(self, command: str, timeout: float, wanted, complaint: str) -> str:
        with self.nested(f"waiting: {command}"):
            end = time.monotonic() + self._scaled(timeout)
            while True:
                status, written = self.execute(command, timeout=timeout)
                if wanted(status):
                    return written
                if time.monotonic() > end:
                    seconds = self._scaled(timeout)
                    self._fail(f"`{command}` {complaint} within {seconds:.0f} s (last status {status})", written)
                time.sleep(0.3)

    # Services

    def systemctl(self, query: str, user: str | None = None) -> tuple[int, str]:
        del user
        return self.execute(f"systemctl {query}")

    def start_job(self, unit: str) -> tuple[int, str]:
        return self.systemctl(f"start {unit}")

    def stop_job(self, unit: str) -> tuple[int, str]:
        return self.systemctl(f"stop {unit}")

    def get_unit_property(self, unit: str, property: str) -> str:
        return self.succeed(f"systemctl show -p {property} --value {unit}").strip()

    def require_unit_state(self, unit: str, require_state: str = "active") -> None:
        state = self.get_unit_property(unit, "ActiveState")
        if state != require_state:
            self._fail(f"unit {unit} is {state}, not {require_state}", "")

    def wait_for_unit(self, unit: str, user: str | None = None, timeout: int = PATIENCE) -> None:
        del user
        # Targets of a systemd machine are reached when the shell is there.
        if unit.endswith(".target"):
            self.connect()
            return
        with self.nested(f"waiting for unit {unit}"):
            end = time.monotonic() + self._scaled(timeout)
            while True:
                state = self.get_unit_property(unit, "ActiveState")
                if state == "active":
                    return
                if state == "failed" or time.monotonic() > end:
                    _, log = self.execute(f"journalctl -u {unit} | tail -n 20")
                    self._fail(f"unit {unit} is {state}", log)
                time.sleep(0.3)

    def wait_for_open_port(self, port: int, addr: str = "localhost", timeout: int = PATIENCE) -> None:
        self.wait_until_succeeds(f"nc -z {addr} {port}", timeout=timeout)

    def wait_for_closed_port(self, port: int, addr: str = "localhost", timeout: int = PATIENCE) -> None:
        self.wait_until_fails(f"nc -z {addr} {port}", timeout=timeout)

    def wait_for_file(self, filename: str, timeout: int = PATIENCE) -> None:
        self.wait_until_succeeds(f"test -e {filename}", timeout=timeout)

    # Network

    def block(self) -> None:
        """Unplugs the cable: no frame in, no frame out, no carrier."""
        self.log("block")
        self._live().command("set_link", name="card", up=False)

    def unblock(self) -> None:
        self.log("unblock")
        self._live().command("set_link", name="card", up=True)

    # Between scenarios

    def reset(self) -> None:
        """Back to an empty state without a boot; off if that isn't possible."""
        if self._qemu is None or not self._qemu.running():
            self._off()
            (self.plan.folder / f"{self.name}.disk").unlink(missing_ok=True)
            return
        self.unblock()
        self.succeed("machine-reset", timeout=60)
        self._reset = True

    def stop(self) -> None:
        """Off, without a word."""
        self._off()

    # Talk

    def log(self, text: str) -> None:
        self.plan.progress.say(f"{self.name}: {text}")

    def nested(self, text: str):
        return self.plan.progress.nested(f"{self.name}: {text}")

    def sleep(self, seconds: float) -> None:
        """Waits in seconds of a real machine."""
        time.sleep(self._scaled(seconds))

    def _scaled(self, seconds: float) -> float:
        return seconds * self.plan.slowness

    def _live(self) -> Qemu:
        if self._qemu is None:
            raise ScenarioFailed(f"{self.name}: isn't running")
        return self._qemu

    def _send(self, data: bytes) -> None:
        try:
            self._live().shell.sendall(data)
        except OSError as error:
            raise ScenarioFailed(f"{self.name}: its shell is gone ({error}){self._console()}") from error

    def _line(self, end: float, command: str) -> bytes:
        while b"\n" not in self._buffer:
            self._receive(end, f"`{command}`")
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line.strip()

    def _receive(self, end: float, awaited: str) -> None:
        shell = self._live().shell
        left = end - time.monotonic()
        if left <= 0:
            raise ScenarioFailed(f"{self.name}: no answer to {awaited}{self._console()}")
        shell.settimeout(left)
        try:
            data = shell.recv(65536)
        except socket.timeout:
            return
        except OSError as error:
            raise ScenarioFailed(f"{self.name}: its shell is gone ({error}){self._console()}") from error
        if not data:
            raise ScenarioFailed(f"{self.name}: ended during {awaited}{self._console()}")
        self._buffer += data

    def _fail(self, what: str, output: str) -> None:
        shown = output[-SHOWN:].rstrip()
        raise ScenarioFailed(f"{self.name}: {what}; output:\n{shown or '(none)'}{self._console(8)}")

    def _console(self, lines: int = 25) -> str:
        """The last lines of the machine's console, for the message of a failure."""
        try:
            last = self.serial.read_text(errors="replace").splitlines()[-lines:]
        except OSError:
            return ""
        return f"\nlast lines of {self.serial}:\n" + "\n".join(line[-300:] for line in last)
