#!/usr/bin/env python3
"""Lathe's server beside llama.cpp's on the same GGUF file: many streams whose prompts begin alike, as Markdown tables.

    tools/serve_bench.py -m MODEL.gguf --lathe build/lathe --llama llama.cpp/bin/llama-server -t 2 \\
        --streams 16 --prefix 500 --suffix 28 --tokens 64 --rounds 3

The servers take turns, started anew in each round, so that both meet the same machine. Prompts are token ids at random
from --seed: a common beginning of --prefix and an end of --suffix of their own. In each round, for each number of
streams: the beginning is computed once, then all streams start at the same time ("warm"). llama-server's slots do not
share a beginning; it is computed in one and copied to the others by way of a file, which costs it nothing here. With
--cold the streams also start on an empty cache. Answers have --tokens tokens, drawn from the 40 likeliest with a seed for
each stream, so that streams part and, in models with experts, want experts of their own.

Medians of the rounds count. Exits with 1 when a server fails.
"""

import argparse
import asyncio
import pathlib
import random
import shlex
import statistics
import sys
import tempfile
import time

from serve_client import Connection, Process, ProtocolError, free_port

TITLES = {"lathe": "Lathe", "llama": "llama-server"}
START_SECONDS = 600


def fail(message):
    sys.exit(f"serve_bench.py: {message}")


def numbers(text):
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers separated by commas, found {text!r}") from None
    if min(values) < 1:
        raise argparse.ArgumentTypeError(f"expected numbers from 1, found {text!r}")
    return values


class Server:
    """One of the two, started for one round."""

    def __init__(self, name, options, streams):
        self.name, self.options, self.port = name, options, free_port()
        self.folder = tempfile.TemporaryDirectory(prefix="slots-")
        positions = options.prefix + options.suffix + options.tokens + 64
        if name == "lathe":
            command = [options.lathe, "serve", "-q", "-m", options.model, "-t", options.threads, "--port", self.port,
                       "--parallel", streams, "--cache-tokens", positions * (streams + 1), *shlex.split(options.lathe_args)]
        else:
            command = [options.llama, "-m", options.model, "-t", options.threads, "-tb", options.threads, "--port", self.port,
                       "--host", "127.0.0.1", "-np", streams, "-c", positions * streams, "--slot-save-path", self.folder.name,
                       *shlex.split(options.llama_args)]
        self.process = Process(command)

    async def ready(self):
        await self.process.wait_for_health(self.port, START_SECONDS)
        await asyncio.sleep(self.options.settle)

    def stop(self):
        self.process.stop(30)

    async def post(self, path, body):
        connection = Connection("127.0.0.1", self.port)
        try:
            status, _ = await connection.request("POST", path, body)
            answer = await connection.body()
        finally:
            await connection.close()
        if status != 200:
            raise ProtocolError(f"{self.name}: {path}: status {status}: {answer[:300]!r}")

    async def warm(self, prefix, streams):
        """The common beginning, computed once and ready for every stream. Its last token may be computed again."""
        body = {"prompt": prefix, "max_tokens": 1, "temperature": 0, "ignore_eos": True}
        if self.name == "lathe":
            # Another end, so that the prompt is as long as those of the streams: its length decides the form of MLA.
            await self.post("/v1/completions", body | {"prompt": prefix + [1] * self.options.suffix})
            return
        await self.post("/v1/completions", body | {"id_slot": 0, "cache_prompt": True})
        await self.post("/slots/0?action=save", {"filename": "prefix"})
        for slot in range(1, streams):
            await self.post(f"/slots/{slot}?action=restore", {"filename": "prefix"})

    async def stream(self, prompt, seed):
        """(start, [times of events with text], end)."""
        body = {"prompt": prompt, "max_tokens": self.options.tokens, "ignore_eos": True, "stream": True, "temperature": 1,
                "top_k": 40, "top_p": 1, "min_p": 0, "seed": seed, "stream_options": {"include_usage": True},
                "cache_prompt": True}
        if self.name == "lathe":
            del body["cache_prompt"]
        connection = Connection("127.0.0.1", self.port)
        begin, times, usage = time.perf_counter(), [], None
        try:
            status, _ = await connection.request("POST", "/v1/completions", body)
            if status != 200:
                raise ProtocolError(f"{self.name}: status {status}: {(await connection.body())[:300]!r}")
            async for at, event in connection.events():
                usage = event.get("usage") or usage
                if event.get("choices") and event["choices"][0].get("text"):
                    times.append(at)
        finally:
            await connection.close()
        made = (usage or {}).get("completion_tokens")
        if made != self.options.tokens or not times:
            raise ProtocolError(f"{self.name}: expected {self.options.tokens} tokens, found {made} in {len(times)} events")
        return begin, times, time.perf_counter()

    async def measure(self, prefix, randomness, streams):
        prompts = [prefix + ids(randomness, self.options.suffix, self.options) for _ in range(streams)]
        done = await asyncio.gather(*[self.stream(prompt, seed) for seed, prompt in enumerate(prompts)])
        wall = max(end for _, _, end in done) - min(begin for begin, _, _ in done)
        return {"rate": streams * self.options.tokens / wall,
                "first": [times[0] - begin for begin, times, _ in done],
                "gaps": [b - a for _, times, _ in done for a, b in zip(times, times[1:])]}


def ids(randomness, count, options):
    return [randomness.randrange(300, options.vocab) for _ in range(count)]


async def run_round(name, options, number):
    """{(streams, warm or cold): measurement} of one server."""
    out = {}
    server = Server(name, options, max(options.streams))
    try:
        await server.ready()
        for streams in options.streams:
            for kind in (["cold"] if options.cold else []) + ["warm"]:
                randomness = random.Random(f"{options.seed} {number} {streams} {kind}")
                prefix = ids(randomness, options.prefix, options)
                if kind == "warm":
                    await server.warm(prefix, streams)
                out[streams, kind] = await server.measure(prefix, randomness, streams)
                found = out[streams, kind]
                print(f"round {number + 1}: {TITLES[name]}, {streams} streams, {kind}: {found['rate']:.1f} tokens/s, first "
                      f"{statistics.median(found['first']):.2f} s", file=sys.stderr, flush=True)
        if not server.process.alive():
            raise ProtocolError(f"{name}: ended: {server.process.tail()}")
    finally:
        server.stop()
    return out


def percentiles(values, digits):
    if len(values) < 2:
        return f"{values[0]:.{digits}f}"
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return " / ".join(f"{cuts[p - 1]:.{digits}f}" for p in (50, 95, 99))


def tables(names, rounds, options):
    lines = ["| streams | cache | server | tokens/s (lowest to highest) | ratio | first token, s: p50 / p95 / p99 | between tokens, "
             "ms: p50 / p95 / p99 |", "|---|---|---|---|---|---|---|"]
    for key in rounds[names[0]][0]:
        base = statistics.median(r[key]["rate"] for r in rounds["lathe"])
        for name in names:
            found = [r[key] for r in rounds[name]]
            rates = [f["rate"] for f in found]
            ratio = "" if name == "lathe" else f"{base / statistics.median(rates):.2f}"
            first = percentiles([v for f in found for v in f["first"]], 2)
            gaps = percentiles([v * 1000 for f in found for v in f["gaps"]] or [0.0], 0)
            lines.append(f"| {key[0]} | {key[1]} | {TITLES[name]} | {statistics.median(rates):.1f} ({min(rates):.1f} to "
                         f"{max(rates):.1f}) | {ratio} | {first} | {gaps} |")
    lines += ["", f"{options.rounds} rounds; prompts of {options.prefix} + {options.suffix} tokens, answers of {options.tokens}."]
    return "\n".join(lines) + "\n"


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", type=pathlib.Path, required=True)
    parser.add_argument("--lathe", required=True)
    parser.add_argument("--llama", help="llama-server; without it Lathe alone is measured")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--streams", type=numbers, default=[16], help="numbers of streams, separated by commas")
    parser.add_argument("--prefix", type=int, default=500)
    parser.add_argument("--suffix", type=int, default=28)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--settle", type=float, default=15.0, help="seconds after a start for what goes on in the background")
    parser.add_argument("--cold", action="store_true", help="also with an empty cache")
    parser.add_argument("--vocab", type=int, default=4000, help="ids of prompts are below")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lathe-args", default="")
    parser.add_argument("--llama-args", default="-fa on --no-webui")
    parser.add_argument("--out", type=pathlib.Path, help="file for the table; default: standard output")
    options = parser.parse_args()
    if min(options.prefix, options.suffix, options.tokens, options.rounds, options.threads) < 1 or options.vocab <= 300:
        parser.error("expected --prefix, --suffix, --tokens, --rounds, --threads from 1 and --vocab above 300")
    return options


def main():
    options = parse_arguments()
    names = ["lathe"] + (["llama"] if options.llama else [])
    rounds = {name: [] for name in names}
    try:
        for number in range(options.rounds):
            for name in names if number % 2 == 0 else reversed(names):
                rounds[name].append(asyncio.run(run_round(name, options, number)))
    except (OSError, RuntimeError, ProtocolError, asyncio.IncompleteReadError) as e:
        fail(f"{type(e).__name__}: {e}")
    text = tables(names, rounds, options)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
