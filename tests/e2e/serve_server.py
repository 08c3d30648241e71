"""What the tests of the server share: the program as a server on a free port, and HTTP down to the bytes."""

import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time


class Server:
    """lathe serve as a child process; `log` collects its stderr."""

    def __init__(self, program, *arguments, model=None, environment=None):
        command = [program, "serve", "--port", "0", *map(str, arguments)]
        if model is not None:
            command += ["-m", str(model)]
        self.folder = tempfile.TemporaryDirectory(prefix="lathe-serve-")
        home = {"HOME": self.folder.name, "HF_HOME": str(pathlib.Path(self.folder.name) / "hf")}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **home, **(environment or {})},
        )
        self.log = []
        self.ready = threading.Event()
        self.port = 0
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        if not self.ready.wait(120) or self.port == 0:
            self.process.kill()
            raise RuntimeError("the server did not start:\n" + "".join(self.log))

    def _read(self):
        for line in self.process.stderr:
            self.log.append(line)
            found = re.search(r"http://[^ ]*?:(\d+)", line)
            if found and not self.port:
                self.port = int(found.group(1))
                self.ready.set()
        self.ready.set()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def connect(self, timeout=20):
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
        return contextlib.closing(connection)

    def request(self, method, path, body=None, headers=None, timeout=60):
        """(status, headers in lower case, body) of one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            if isinstance(body, (dict, list)):
                body = json.dumps(body)
            if isinstance(body, str):
                body = body.encode("utf-8", "surrogatepass")
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            content = response.read()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, content
        finally:
            connection.close()

    def post(self, path, body, headers=None, timeout=60):
        """(status, JSON)."""
        status, _, content = self.request("POST", path, body, headers, timeout)
        return status, json.loads(content)

    def stream(self, path, body, headers=None, timeout=60):
        """Yields the events of a stream as JSON; checks that it ends in [DONE]."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("POST", path, json.dumps({**body, "stream": True}), headers or {})
            response = connection.getresponse()
            if response.status != 200:
                raise AssertionError(f"status {response.status}: {response.read()!r}")
            for line in response:
                line = line.decode("utf-8").rstrip("\n")
                if line == "data: [DONE]":
                    return
                if line.startswith("data: "):
                    yield json.loads(line[6:])
                elif line and not line.startswith(":"):
                    raise AssertionError(f"unexpected line {line!r}")
            raise AssertionError("the stream ended without [DONE]")
        finally:
            connection.close()

    def metrics(self):
        """Values by name, without labels; of several lines with one name the sum."""
        out = {}
        for line in self.request("GET", "/metrics")[2].decode().splitlines():
            if not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                name = name.split("{")[0].split(":", 1)[1]
                out[name] = out.get(name, 0.0) + float(value)
        return out

    def wait_idle(self, seconds=20):
        """Waits until the engine has nothing to do; fails when it does not come to that."""
        end = time.monotonic() + seconds
        while True:
            found = self.metrics()
            if found["num_requests_running"] == 0 and found["num_requests_waiting"] == 0:
                return found
            if time.monotonic() > end:
                raise AssertionError(f"still busy after {seconds} s: {found['num_requests_running']} running")
            time.sleep(0.05)

    def memory(self):
        """Resident bytes."""
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(re.search(r"VmRSS:\s+(\d+) kB", text).group(1)) * 1024

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def stop(self, seconds=60):
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            code = None
        self.reader.join(10)
        self.process.stderr.close()
        self.folder.cleanup()
        return code
