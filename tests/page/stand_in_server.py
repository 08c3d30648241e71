"""A server that behaves like `lathe serve` towards the chat page, with scripted answers and faults.

What it answers depends on the last message: a word of SCRIPTS below, or an echo of the text. `python3 stand_in_server.py
PAGE [PORT]` serves the page for a look at it in a browser.
"""

import contextlib
import http.server
import json
import pathlib
import socket
import sys
import threading
import time

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)

MARKDOWN = """# Turning a bowl

Use a **sharp gouge** and *light* cuts; `rpm` near ~~900~~ 1200. See [the guide](https://example.org/a_(b)?q=1 "Guide") or https://example.org/x.

1. Mount the blank
2. True the edge
   - slowly
   - from the rim
3. Hollow

> Measure twice.
> Cut once.

| Wood | Speed | Note |
|:-----|------:|------|
| Oak | 900 | open `a|b` grain |
| Maple | 1200 | **fine** |

```python
def speed(diameter_mm, surface_m_per_s=5.0):
    return surface_m_per_s * 60_000 / (3.14159 * diameter_mm)  # a line that is long enough to need scrolling on a phone
```

---

snake_case_name and 2 * 3 * 4 stay.
"""

# Each of these would call the page's `attack` if any text became markup.
HOSTILE = """<script>attack(1)</script><img src=x onerror="attack(2)"><svg onload=attack(3)>

[click](javascript:attack(4)) [click](JaVaScRiPt:attack(5)) [click](data:text/html,<script>attack(6)</script>)
[click]( java\tscript:attack(7)) [a](vbscript:attack(8)) <javascript:attack(9)> ![x](https://evil.example/x.png)
[x](https://ok.example/" onmouseover="attack(10)) **<b onclick=attack(11)>bold</b>**

# <iframe src="javascript:attack(12)"></iframe>

| <img src=x onerror=attack(13)> | b |
|---|---|
| <a href="javascript:attack(14)">x</a> | `<script>attack(15)</script>` |

```"><img src=x onerror=attack(16)>
</code></pre><script>attack(17)</script>
```

<style>body{display:none}</style><form action=https://evil.example><button>b</button></form><base href=//evil.example/>
"""

STORY = " there was a king who had three sons, and the youngest of them was thought a fool."
LONG = "\n\n".join(f"Paragraph {i}: " + "the shavings curl away from the tool and fall. " * 3 for i in range(40))
SCRIPTS = {"markdown": MARKDOWN, "hostile": HOSTILE, "long": LONG, "slow": "word " * 100, "story": STORY}


class StandIn(http.server.ThreadingHTTPServer):
    """Settings that tests change: `key` (asked for when set), `chat_template`, `delay` between pieces in seconds,
    `healthy`, `about` the model in the list of models, `context` in characters. Seen: `bodies` of generation requests, `keys` they came with, `cut`, the streams that the page closed."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, page, port=0):
        super().__init__(("127.0.0.1", port), Handler)
        self.page = pathlib.Path(page)
        self.key, self.chat_template, self.delay, self.healthy = "", True, 0.0, True
        self.context = 1 << 30
        self.bodies, self.keys, self.cut, self.failures = [], [], 0, 1
        self.model, self.about = "stand-in", {}
        self.connections = []

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}/"

    def start(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def get_request(self):
        connection, address = super().get_request()
        self.connections.append(connection)
        return connection, address

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):  # the page may go at any time
            super().handle_error(request, client_address)

    def stop(self):
        """Ends as a process would: with all connections."""
        self.shutdown()
        self.server_close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body, kind="application/json", headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def fail(self, status, message, code=None, kind="invalid_request_error", headers=()):
        self.answer(status, {"error": {"message": message, "type": kind, "param": None, "code": code}}, headers=headers)

    def refused(self):
        if not self.server.key or self.headers.get("Authorization") == f"Bearer {self.server.key}":
            return False
        self.fail(401, "missing or wrong API key", "invalid_api_key", "authentication_error")
        return True

    def do_GET(self):
        if self.path == "/":
            page = self.server.page.read_bytes()
            self.answer(200, page, "text/html; charset=utf-8", [("Content-Security-Policy", POLICY)])
        elif self.path == "/health":
            self.answer(200 if self.server.healthy else 503, {"status": "ok" if self.server.healthy else "loading model"})
        elif self.path == "/v1/models":
            if not self.refused():
                data = [{"id": self.server.model, "object": "model", "owned_by": "lathe", **self.server.about}]
                self.answer(200, {"object": "list", "data": data})
        else:
            self.fail(404, f"no such endpoint: {self.path}", "not_found")

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))))
        if self.refused():
            return
        server = self.server
        server.bodies.append((self.path, body))
        server.keys.append(self.headers.get("Authorization"))
        chat = self.path == "/v1/chat/completions"
        if chat and not server.chat_template:
            return self.fail(400, "the model has no chat template: use /v1/completions", "no_chat_template")
        if not chat and len(body["prompt"]) > server.context:
            return self.fail(400, "the prompt is longer than the context", "context_length_exceeded")
        word = body["messages"][-1]["content"].strip() if chat else "story"
        if word == "refuse":
            return self.fail(400, "temperature: expected 0 to 2, found 9", "invalid_value")
        if word == "busy" and server.failures > 0:
            server.failures -= 1
            return self.fail(429, "too many requests wait", "queue_full", "rate_limit_error", [("Retry-After", "3")])
        try:
            self.stream(chat, word, body)
        except (BrokenPipeError, ConnectionResetError):
            server.cut += 1
            self.close_connection = True

    def event(self, value):
        data = f"data: {value if isinstance(value, str) else json.dumps(value)}\n\n".encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def stream(self, chat, word, body):
        server = self.server
        text = SCRIPTS.get(word, f"You said: {word}")
        pieces = [text[i : i + 5] for i in range(0, len(text), 5)]
        delay = server.delay or {"slow": 0.03, "long": 0.01}.get(word, 0)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

        def choice(delta, finish=None):
            entry = {"index": 0, "finish_reason": finish, **({"delta": delta} if chat else {"text": delta})}
            return {"id": "x", "object": "chunk", "model": body["model"], "choices": [entry]}

        if word == "read":
            for processed in (512, 1024):
                self.event({**choice({}), "prompt_progress": {"total": 2048, "cache": 0, "processed": processed, "time_ms": 10}})
                time.sleep(0.5)
        if word == "think":
            for piece in ("First the ", "wood, then ", "the tool."):
                self.event(choice({"reasoning_content": piece}))
        for number, piece in enumerate(pieces):
            self.event(choice({"content": piece} if chat else piece))
            time.sleep(delay)
            if word == "break" and number == 1:
                time.sleep(0.2)  # the page has read what came
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if word == "fault" and number == 1:
                self.event({"error": {"message": "out of memory", "type": "server_error", "code": "memory"}})
                break
        self.event(choice({} if chat else "", "length" if word == "story" else "stop"))
        self.event({"choices": [], "usage": {"prompt_tokens": 7 if chat else len(body["prompt"]) // 4, "completion_tokens": len(pieces), "total_tokens": 0}})
        self.event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()


if __name__ == "__main__":
    stand_in = StandIn(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 8081)
    print(stand_in.address)
    stand_in.serve_forever()
