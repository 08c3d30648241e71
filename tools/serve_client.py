"""What serve_load.py and serve_bench.py share: HTTP/1.1 over asyncio down to the events of a stream, and servers as child
processes. Python's standard library only."""

import asyncio
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse


class ProtocolError(Exception):
    """The server did not keep to HTTP or to the form of an event stream."""


class Connection:
    """One connection, one request at a time. `receive_buffer`: bytes that the system holds for a reader that is slow."""

    def __init__(self, host, port, receive_buffer=None):
        self.host, self.port, self.receive_buffer = host, port, receive_buffer
        self.reader = self.writer = None
        self.chunked, self.length, self.keep_alive = False, 0, False

    async def open(self):
        if self.writer is not None:
            return
        connection = socket.socket()
        connection.setblocking(False)
        if self.receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(connection, (self.host, self.port))
        except OSError:
            connection.close()
            raise
        limit = self.receive_buffer or 1 << 16
        self.reader, self.writer = await asyncio.open_connection(sock=connection, limit=max(limit, 1 << 16))

    async def close(self):
        if self.writer is None:
            return
        writer, self.reader, self.writer = self.writer, None, None
        writer.close()
        try:
            await writer.wait_closed()
        except OSError:
            pass

    async def send(self, data):
        await self.open()
        self.writer.write(data)
        await self.writer.drain()

    async def request(self, method, path, body=None, headers=None):
        """Sends a request and reads the head of the answer: (status, headers in lower case)."""
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}:{self.port}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        await self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b""))
        return await self.head()

    async def head(self):
        text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *rest = text[:-4].split("\r\n")
        found = re.fullmatch(r"HTTP/1\.1 (\d{3})(?: .*)?", first)
        if not found:
            raise ProtocolError(f"expected a status line, found {first!r}")
        headers = {}
        for line in rest:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        self.chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        self.length = int(headers["content-length"]) if "content-length" in headers else None
        self.keep_alive = headers.get("connection", "keep-alive").lower() != "close"
        return int(found.group(1)), headers

    async def pieces(self, pause=None):
        """The body as it comes. `pause`: awaited before each read, for slow readers."""
        if self.chunked:
            while True:
                if pause:
                    await pause()
                size = int((await self.reader.readline()).split(b";")[0], 16)
                data = await self.reader.readexactly(size + 2)
                if not data.endswith(b"\r\n"):
                    raise ProtocolError("expected a line end behind a chunk")
                if size == 0:
                    break
                yield data[:-2]
        elif self.length is not None:
            yield await self.reader.readexactly(self.length)
        else:
            while data := await self.reader.read(1 << 16):
                yield data
        if not self.keep_alive:
            await self.close()

    async def body(self):
        return b"".join([piece async for piece in self.pieces()])

    async def events(self, pause=None):
        """The events of a stream as JSON, each with the time it came; it has to end with [DONE]."""
        rest = b""
        done = False
        async for piece in self.pieces(pause):
            now = time.perf_counter()
            rest += piece
            *events, rest = rest.split(b"\n\n")
            for event in events:
                if event.startswith(b":"):
                    continue
                if done or not event.startswith(b"data: "):
                    raise ProtocolError(f"expected an event, found {event[:80]!r}")
                if event == b"data: [DONE]":
                    done = True
                else:
                    yield now, json.loads(event[6:])
        if not done or rest:
            raise ProtocolError("the stream ended without [DONE]")


async def get(host, port, path, headers=None):
    """(status, body) of a GET on a connection of its own."""
    connection = Connection(host, port)
    try:
        status, _ = await connection.request("GET", path, headers=headers)
        return status, await connection.body()
    finally:
        await connection.close()


def metrics_of(text):
    """Values of a Prometheus page by name, without prefix and labels; of several lines with one name the sum."""
    out = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            name = name.split("{")[0].split(":", 1)[-1]
            out[name] = out.get(name, 0.0) + float(value)
    return out


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Process:
    """A server as a child process; its stderr and stdout go to a file, `log`."""

    def __init__(self, command, environment=None):
        self.command = [str(part) for part in command]
        self.folder = tempfile.TemporaryDirectory(prefix="serve-")
        self.log = pathlib.Path(self.folder.name) / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env={**os.environ, **(environment or {})})

    def tail(self, size=2000):
        return self.log.read_text(encoding="utf-8", errors="replace")[-size:]

    def alive(self):
        return self.process.poll() is None

    def wait_for_line(self, pattern, seconds):
        """The match of a line of the log; fails when the process ends or is late."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = re.search(pattern, self.log.read_text(encoding="utf-8", errors="replace"))
            if found:
                return found
            if not self.alive():
                raise RuntimeError(f"{self.command[0]}: ended with {self.process.returncode}: {self.tail()}")
            time.sleep(0.05)
        raise RuntimeError(f"{self.command[0]}: not ready after {seconds} s: {self.tail()}")

    async def wait_for_health(self, port, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.alive():
            try:
                if (await get("127.0.0.1", port, "/health"))[0] == 200:
                    return
            except (OSError, asyncio.IncompleteReadError):
                pass
            await asyncio.sleep(0.1)
        raise RuntimeError(f"{self.command[0]}: not healthy after {seconds} s: {self.tail()}")

    def stop(self, seconds=60):
        """SIGTERM; the exit code, None when it had to be killed."""
        if self.alive():
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None


def split_url(url):
    """(host, port) of http://HOST[:PORT]."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"expected http://HOST:PORT, found {url!r}")
    return parts.hostname, parts.port or 80
