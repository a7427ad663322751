"""The switch that joins the machines: Ethernet frames over socket pairs, so that neither rights nor ports are needed."""

import selectors
import socket
import threading

# More than any frame that a guest sends: offloaded segments have up to 64 KiB.
FRAME = 128 * 1024

# What a machine may be behind before frames to it are dropped, as a switch would, in bytes.
QUEUE = 1024 * 1024


class Switch:
    """A learning switch in a thread."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._ports: set[socket.socket] = set()
        self._addresses: dict[bytes, socket.socket] = {}
        self._lock = threading.Lock()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._forward, name="switch", daemon=True)
        self._thread.start()

    def port(self) -> socket.socket:
        """The machine's end of a new cable; closing it unplugs it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, QUEUE)
        ours.setblocking(False)
        with self._lock:
            self._ports.add(ours)
            self._selector.register(ours, selectors.EVENT_READ)
        self._wake.send(b"+")
        return theirs

    def unplug(self, machine_end: socket.socket) -> None:
        machine_end.close()

    def close(self) -> None:
        self._wake.close()
        self._thread.join(timeout=5)

    def _forward(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._woken:
                    if not self._woken.recv(64):
                        self._end()
                        return
                else:
                    self._from(key.fileobj)

    def _from(self, port: socket.socket) -> None:
        # A bounded batch, so that one machine can't keep the others waiting.
        for _ in range(64):
            try:
                frame = port.recv(FRAME)
            except BlockingIOError:
                return
            except OSError:
                frame = b""
            if not frame:
                self._remove(port)
                return
            if len(frame) < 14:
                continue
            self._addresses[frame[6:12]] = port
            known = None if frame[0] & 1 else self._addresses.get(frame[:6])
            if known is not None:
                if known is not port:
                    self._send(known, frame)
                continue
            with self._lock:
                others = [other for other in self._ports if other is not port]
            for other in others:
                self._send(other, frame)

    def _send(self, port: socket.socket, frame: bytes) -> None:
        try:
            port.send(frame)
        except OSError:
            # Full, or unplugged: a frame is lost, as frames are.
            pass

    def _remove(self, port: socket.socket) -> None:
        with self._lock:
            self._ports.discard(port)
            self._selector.unregister(port)
        self._addresses = {
            address: at for address, at in self._addresses.items() if at is not port
        }
        port.close()

    def _end(self) -> None:
        with self._lock:
            for port in self._ports:
                port.close()
            self._ports.clear()
        self._woken.close()
        self._selector.close()
