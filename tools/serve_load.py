#!/usr/bin/env python3
"""Load on `lathe serve` as bad as it comes, for as long as wanted, and whether all is well afterwards.

    tools/serve_load.py --lathe build/lathe -m MODEL --clients 64 --seconds 300
    tools/serve_load.py --url http://127.0.0.1:8080 --pid PID

Clients stream and do not stream, leave in the middle, read slowly, send bad requests and halves of requests. Checked:
  - every good request is answered whole, and with exactly the text and the tokens that it gets alone;
  - every bad request gets its status;
  - memory, descriptors and threads of the server are as they were halfway;
  - in the end nothing runs or waits, and every page of the cache is free or kept for prompts that begin alike;
  - a server that was started here ends with 0 on SIGTERM.
Prints a report; exit code 0 when all holds, 1 when not, 2 for wrong usage. Everything random comes from --seed.
"""

import argparse
import asyncio
import collections
import json
import os
import pathlib
import random
import re
import shlex
import statistics
import sys
import time

from serve_client import Connection, Process, ProtocolError, get, metrics_of, split_url

WORDS = ("once upon a time there was a little dog who lived in the old house near a river and every day she went to "
         "see her friend the bird under the big tree they found red apples and played until night").split()
ANSWER_SECONDS = 120  # what the slowest good request may take


def prompts(count, random_source):
    """Bodies of good requests: some prompts begin alike, lengths differ, greedy and seeded."""
    shared = " ".join(random_source.choice(WORDS) for _ in range(90))
    for i in range(count):
        text = " ".join(random_source.choice(WORDS) for _ in range(random_source.choice((3, 12, 40, 150))))
        if i % 3 == 0:
            text = shared + " " + text
        body = {"max_tokens": random_source.choice((1, 8, 32, 64, 150)), "temperature": 0}
        if i % 4 == 3:
            body |= {"temperature": 1.0, "top_p": 0.95, "seed": i}
        if i % 5 == 4:
            yield "/v1/chat/completions", body | {"messages": [{"role": "user", "content": text}]}
        else:
            yield "/v1/completions", body | {"prompt": text, "ignore_eos": i % 2 == 0}


# (path, body, status): whatever a client gets wrong.
BAD = [
    ("/v1/completions", b"{", 400),
    ("/v1/completions", b'{"prompt": 1}', 400),
    ("/v1/completions", b'{"prompt": "a", "max_tokens": -1}', 400),
    ("/v1/completions", b'{"prompt": "a", "temperature": "hot"}', 400),
    ("/v1/completions", json.dumps({"prompt": "a", "stop": ["x"] * 99}).encode(), 400),
    ("/v1/completions", json.dumps({"prompt": "word " * 100_000}).encode(), 400),
    ("/v1/chat/completions", b'{"messages": []}', 400),
    ("/v1/chat/completions", b'{"messages": [{"role": "king", "content": "a"}]}', 400),
    ("/v1/chat/completions", b"[" * 5000, 400),
    ("/v1/nothing", b"{}", 404),
]


class Alone:
    """A good request and what it gets alone."""

    def __init__(self, path, body):
        self.path, self.body = path, body
        self.text, self.ids, self.reason = "", [], ""

    def of_choice(self, choice):
        """(text, ids, finish reason) of a choice, whole or of an event."""
        message = choice.get("delta") or choice.get("message") or {}
        return choice.get("text") or message.get("content") or "", choice.get("token_ids") or [], choice["finish_reason"]


class Load:
    def __init__(self, options, host, port, pid):
        self.options, self.host, self.port, self.pid = options, host, port, pid
        self.headers = {"Authorization": f"Bearer {options.key}"} if options.key else {}
        self.counts = collections.Counter()
        self.problems = []
        self.tokens = 0
        self.first_token, self.gaps = [], []
        self.samples = []  # (seconds, resident bytes, descriptors, threads)
        self.requests = []
        self.ends_at = 0.0

    def problem(self, text):
        """Of each kind, which stands before the first colon, the first few are told."""
        self.counts["problems"] += 1
        kind = text.partition(":")[0]
        if sum(told.startswith(kind + ":") for told in self.problems) < 5:
            self.problems.append(text)

    async def whole(self, connection, request):
        """A request without a stream: (text, ids, finish reason)."""
        status, _ = await connection.request("POST", request.path, request.body | {"return_token_ids": True}, self.headers)
        body = await connection.body()
        if status != 200:
            raise ProtocolError(f"status {status}: {body[:200]!r}")
        return request.of_choice(json.loads(body)["choices"][0])

    async def streamed(self, connection, request, pause=None, extra=None, events=None):
        """A streamed request: (text, ids, finish reason), None when it was left after `events` events."""
        began = time.perf_counter()
        body = request.body | {"stream": True, "return_token_ids": True} | (extra or {})
        status, _ = await connection.request("POST", request.path, body, self.headers)
        if status != 200:
            raise ProtocolError(f"status {status}: {(await connection.body())[:200]!r}")
        text, ids, reason, last, count = "", [], None, None, 0
        async for at, event in connection.events(pause):
            if "error" in event:
                raise ProtocolError(f"error in a stream: {event['error']}")
            piece, new_ids, reason = request.of_choice(event["choices"][0])
            text += piece
            ids += new_ids
            if new_ids and pause is None:
                if last is None:
                    self.first_token.append(at - began)
                else:
                    self.gaps.append((at - last) / len(new_ids))
                last = at
            self.tokens += len(new_ids)
            count += 1
            if events is not None and count >= events:
                await connection.close()
                return None
        return text, ids, reason

    async def prepare(self):
        connection = Connection(self.host, self.port)
        for path, body in prompts(self.options.prompts, random.Random(self.options.seed)):
            request = Alone(path, body)
            request.text, request.ids, request.reason = await self.whole(connection, request)
            if not request.ids:
                self.problem(f"alone: {path}: expected tokens, found none")
            self.requests.append(request)
        await connection.close()

    def compare(self, kind, request, found):
        self.counts[kind] += 1
        if found != (request.text, request.ids, request.reason):
            self.problem(f"{kind}: expected as alone {request.text[:60]!r} {request.ids[:8]} {request.reason}, "
                         f"found {found[0][:60]!r} {found[1][:8]} {found[2]}")

    async def good(self, connection, randomness):
        request = randomness.choice(self.requests)
        if randomness.random() < 0.2:
            return self.compare("whole", request, await self.whole(connection, request))
        return self.compare("streamed", request, await self.streamed(connection, request))

    async def slow(self, randomness):
        """Log-probabilities make the stream large enough to fill what the system buffers."""
        connection = Connection(self.host, self.port, receive_buffer=4096)
        chat = {"logprobs": True, "top_logprobs": 20}
        request = randomness.choice(self.requests)
        extra = chat if request.path.endswith("chat/completions") else {"logprobs": 20}
        delay = randomness.choice((0.01, 0.05, 0.1))
        try:
            found = await self.streamed(connection, request, lambda: asyncio.sleep(delay), extra)
            self.compare("slow", request, found)
        finally:
            await connection.close()

    async def leave(self, randomness):
        connection = Connection(self.host, self.port)
        request = randomness.choice(self.requests)
        try:
            await self.streamed(connection, request, events=randomness.choice((1, 2, 5, 10)))
            self.counts["left"] += 1
        finally:
            await connection.close()

    async def half(self, randomness):
        """A request that never becomes whole, or that nobody waits for."""
        connection = Connection(self.host, self.port)
        request = randomness.choice(self.requests)
        body = json.dumps(request.body | {"stream": True}).encode()
        head = f"POST {request.path} HTTP/1.1\r\nHost: {self.host}\r\nContent-Length: {len(body)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in self.headers.items()) + "\r\n"
        data = head.encode() + body
        try:
            await connection.send(data[:randomness.randrange(len(data) + 1)])
            await asyncio.sleep(randomness.choice((0, 0.05)))
            self.counts["vanished"] += 1
        finally:
            await connection.close()

    async def bad(self, connection, randomness):
        path, body, expected = randomness.choice(BAD)
        status, _ = await connection.request("POST", path, body, self.headers)
        answer = await connection.body()
        self.counts["bad"] += 1
        if status != expected or not json.loads(answer)["error"]["message"]:
            self.problem(f"bad: {path} {body[:40]!r}: expected {expected}, found {status}: {answer[:80]!r}")

    async def client(self, number):
        randomness = random.Random(self.options.seed * 1000 + number)
        connection = Connection(self.host, self.port)
        kinds = [("good", 50), ("leave", 20), ("slow", 15), ("half", 7), ("bad", 8)]
        names, weights = zip(*kinds)
        while time.monotonic() < self.ends_at:
            kind = randomness.choices(names, weights)[0]
            own = kind in ("good", "bad")
            act = getattr(self, kind)
            try:
                await asyncio.wait_for(act(connection, randomness) if own else act(randomness), ANSWER_SECONDS)
            except (OSError, ProtocolError, ValueError, KeyError, asyncio.IncompleteReadError, asyncio.TimeoutError) as e:
                self.problem(f"{kind}: {type(e).__name__}: {e}")
                await connection.close()
        await connection.close()

    def sample(self):
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        resident, threads = (int(re.search(rf"{name}:\s+(\d+)", status).group(1)) for name in ("VmRSS", "Threads"))
        return resident * 1024, len(os.listdir(f"/proc/{self.pid}/fd")), threads

    async def watch(self):
        while True:
            try:
                self.samples.append((time.monotonic(), *self.sample()))
            except OSError:
                return self.problem(f"process {self.pid}: expected it to run, found it ended")
            await asyncio.sleep(0.5)

    async def run(self):
        await self.prepare()
        self.ends_at = time.monotonic() + self.options.seconds
        watch = asyncio.create_task(self.watch()) if self.pid else None
        clients = [self.client(i) for i in range(self.options.clients)]
        await asyncio.gather(*clients)
        if watch:
            watch.cancel()
        await self.check_end()
        if self.pid:
            self.check_memory()

    async def check_end(self):
        """Nothing runs, nothing waits, no page is lost."""
        found = {}
        end = time.monotonic() + 20
        while time.monotonic() < end:
            status, text = await get(self.host, self.port, "/metrics", self.headers)
            if status != 200:
                return self.problem(f"/metrics: expected 200, found {status}")
            found = metrics_of(text.decode())
            busy = [name for name in ("num_requests_running", "num_requests_waiting", "num_requests_preparing")
                    if found[name] != 0]
            if not busy and found["http_connections"] == 1:
                break
            await asyncio.sleep(0.1)
        else:
            self.problem(f"after 20 s without clients: expected an idle server, found {busy} above 0 and "
                         f"{found['http_connections']:.0f} connections")
        free, kept, all_pages = (found[n] for n in ("kv_cache_free_pages", "kv_cache_prefix_pages", "kv_cache_pages"))
        if free + kept != all_pages:
            self.problem(f"pages: expected {all_pages:.0f} free or kept, found {free:.0f} free and {kept:.0f} kept")
        self.metrics = found
        # A one-token request right after the load: the server is well.
        request = min(self.requests, key=lambda r: len(r.ids))
        connection = Connection(self.host, self.port)
        self.compare("afterwards", request, await self.whole(connection, request))
        await connection.close()

    def check_memory(self):
        """Growth over the second half of the run, on a line through its samples."""
        half = [s for s in self.samples if s[0] >= self.samples[0][0] + self.options.seconds / 2]
        if len(half) < 3:
            return self.problem(f"memory: expected samples of at least 1.5 s, found {len(half)}")
        slope = statistics.linear_regression([s[0] for s in half], [s[1] for s in half]).slope
        minutes = (half[-1][0] - half[0][0]) / 60
        self.slope = slope * 60 / 2**20
        growth = self.slope * minutes
        allowed = self.options.growth + self.options.slope * minutes
        if growth > allowed:
            self.problem(f"memory: expected a growth of at most {allowed:.1f} MiB in {minutes:.1f} min, found {growth:.1f}")
        for _ in range(50):  # connections that were closed last may still be on their way out
            _, descriptors, threads = self.sample()
            if descriptors <= self.samples[0][2]:
                break
            time.sleep(0.1)
        if threads != self.samples[0][3]:
            self.problem(f"threads: expected {self.samples[0][3]} as at the start, found {threads}")
        if descriptors > self.samples[0][2]:
            self.problem(f"descriptors: expected at most {self.samples[0][2]} as at the start, found {descriptors}")

    def report(self):
        print(f"{self.options.clients} clients, {self.options.seconds} s: " +
              ", ".join(f"{self.counts[k]} {k}" for k in ("whole", "streamed", "slow", "left", "vanished", "bad")))
        print(f"streamed tokens received: {self.tokens}, {self.tokens / self.options.seconds:.1f} per second")
        for name, values in (("first token", self.first_token), ("between tokens", self.gaps)):
            if len(values) >= 2:
                cuts = statistics.quantiles(values, n=100, method="inclusive")
                print(f"{name}: median {cuts[49] * 1000:.0f} ms, 95 % {cuts[94] * 1000:.0f} ms, 99 % {cuts[98] * 1000:.0f} ms")
        if self.samples:
            resident = [s[1] / 2**20 for s in self.samples]
            middle = resident[len(resident) // 2]
            print(f"memory: {resident[0]:.1f} MiB at the start, {middle:.1f} halfway, {resident[-1]:.1f} at the end; "
                  f"second half {getattr(self, 'slope', 0.0):+.2f} MiB/min; descriptors at most "
                  f"{max(s[2] for s in self.samples)}")
        if m := getattr(self, "metrics", None):
            print(f"in the end: running {m['num_requests_running']:.0f}, waiting {m['num_requests_waiting']:.0f}, pages "
                  f"{m['kv_cache_pages']:.0f} = {m['kv_cache_free_pages']:.0f} free + {m['kv_cache_prefix_pages']:.0f} kept; "
                  f"{m['num_preemptions_total']:.0f} preemptions, {m['http_disconnects_total']:.0f} disconnects")
        for text in self.problems:
            print("problem:", text)
        print("all well" if not self.counts["problems"] else f"{self.counts['problems']} problems")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lathe", help="the program, to start a server of its own")
    parser.add_argument("-m", "--model", help="model of that server; default: the one the program comes with")
    parser.add_argument("--serve-args", default="", help="more arguments of lathe serve, as one text")
    parser.add_argument("--url", help="a server that runs already")
    parser.add_argument("--pid", type=int, help="its process, to watch its memory")
    parser.add_argument("--key", help="API key")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--prompts", type=int, default=32, help="different requests")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--growth", type=float, default=4, help="MiB of memory that the second half may add")
    parser.add_argument("--slope", type=float, default=1, help="and MiB for each of its minutes")
    options = parser.parse_args()
    if bool(options.lathe) == bool(options.url):
        parser.error("expected either --lathe or --url")
    if options.clients < 1 or options.prompts < 1 or options.seconds <= 0:
        parser.error("expected --clients, --prompts and --seconds above 0")
    return options


def main():
    options = parse_arguments()
    server = None
    if options.lathe:
        command = [options.lathe, "serve", "--port", "0", "-q", *(["-m", options.model] if options.model else [])]
        server = Process([*command, *shlex.split(options.serve_args)])
    try:
        if server:
            port = int(server.wait_for_line(r"serving .* on http://[^ ]*:(\d+)", 300).group(1))
            load = Load(options, "127.0.0.1", port, server.process.pid)
        else:
            load = Load(options, *split_url(options.url), options.pid)
        try:
            asyncio.run(load.run())
        except (OSError, ProtocolError, asyncio.IncompleteReadError) as e:
            load.problem(f"{type(e).__name__}: {e}")
        if server:
            alive = server.alive()
            code = server.stop()
            if not alive or code != 0:
                load.problem(f"server: expected exit code 0 on SIGTERM, found {code}: {server.tail(500)}")
        load.report()
    finally:
        if server:
            server.stop(5)
    return 1 if load.counts["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
