#!/usr/bin/env python3
"""What lathe serve answers: completions, chats, streams, limits, keys, signals, logs.

    serve_api.py --program lathe --source .
"""

import argparse
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from serve_server import Server

PROGRAM = ""
SOURCE = pathlib.Path()
SLOWNESS = 1.0
SERVER = None
CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
PROMPT = "Once upon a time there was a king"
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}{% if thinking is defined %}[thinking {{ thinking }}]{% endif %}"
)


def generate(*arguments):
    """What lathe generate says to the same."""
    out = subprocess.run(
        [PROGRAM, "generate", "-m", SOURCE / "models/storyteller", "--json", "-q", *map(str, arguments)],
        check=True, capture_output=True, stdin=subprocess.DEVNULL,
    ).stdout
    return json.loads(out)


def joined(events, key="text"):
    return "".join(
        (choice.get("text") if key == "text" else choice["delta"].get("content")) or ""
        for event in events for choice in event["choices"]
    )


class Answers(unittest.TestCase):
    def ask(self, **body):
        status, answer = SERVER.post(TEXT, {"prompt": PROMPT, "max_tokens": 24, "temperature": 0, **body})
        self.assertEqual(status, 200, answer)
        return answer

    def test_the_same_as_on_the_command_line(self):
        expected = generate("-p", PROMPT, "-n", 24, "--temperature", 0)
        answer = self.ask()
        self.assertEqual(answer["object"], "text_completion")
        self.assertTrue(answer["id"].startswith("cmpl-"))
        choice = answer["choices"][0]
        self.assertEqual((choice["text"], choice["finish_reason"]), (expected["text"], expected["finish_reason"]))
        self.assertEqual(answer["usage"]["prompt_tokens"], expected["usage"]["prompt_tokens"])
        self.assertEqual(answer["usage"]["completion_tokens"], 24)
        self.assertEqual(answer["usage"]["total_tokens"], expected["usage"]["total_tokens"])
        self.assertEqual(answer["timings"]["predicted_n"], 24)
        self.assertGreater(answer["timings"]["predicted_per_second"], 0)
        seeded = generate("-p", PROMPT, "-n", 24, "--temperature", 1, "--top-k", 0, "--top-p", 1, "--seed", 7)
        answer = self.ask(temperature=1, top_k=0, top_p=1, seed=7)
        self.assertEqual(answer["choices"][0]["text"], seeded["text"])

    def test_streams_say_the_same(self):
        whole = self.ask()["choices"][0]["text"]
        body = {"prompt": PROMPT, "max_tokens": 24, "temperature": 0, "stream_options": {"include_usage": True}}
        events = list(SERVER.stream(TEXT, body))
        self.assertEqual(joined(events), whole)
        self.assertEqual(len({(e["id"], e["created"], e["model"]) for e in events}), 1)
        self.assertEqual(events[-1]["choices"], [])
        self.assertEqual(events[-1]["usage"]["completion_tokens"], 24)
        self.assertTrue(all(e["usage"] is None for e in events[:-1]))
        reasons = [e["choices"][0]["finish_reason"] for e in events[:-1]]
        self.assertEqual(reasons, [None] * (len(reasons) - 1) + ["length"])
        self.assertIn("timings", events[-2])

    def test_chats(self):
        body = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 24, "temperature": 0}
        status, answer = SERVER.post(CHAT, body)
        self.assertEqual(status, 200, answer)
        self.assertEqual(answer["object"], "chat.completion")
        message = answer["choices"][0]["message"]
        self.assertEqual(message["role"], "assistant")
        # The model has no chat template: it continues the text.
        self.assertEqual(message["content"], self.ask()["choices"][0]["text"])
        parts = [{"type": "text", "text": PROMPT[:10]}, {"type": "text", "text": PROMPT[10:]}]
        _, same = SERVER.post(CHAT, {**body, "messages": [{"role": "user", "content": parts}]})
        self.assertEqual(same["choices"][0]["message"]["content"], message["content"])
        events = list(SERVER.stream(CHAT, body))
        self.assertEqual(events[0]["object"], "chat.completion.chunk")
        self.assertEqual(events[0]["choices"][0]["delta"], {"role": "assistant", "content": ""})
        self.assertEqual(joined(events, "delta"), message["content"])
        self.assertEqual(events[-1]["choices"][0]["delta"], {})
        self.assertEqual(events[-1]["choices"][0]["finish_reason"], "length")

    def test_stop_strings_never_show(self):
        whole = self.ask(max_tokens=48)["choices"][0]["text"]
        stop = whole[20:24]
        answer = self.ask(max_tokens=48, stop=stop)["choices"][0]
        self.assertEqual((answer["text"], answer["finish_reason"]), (whole[: whole.index(stop)], "stop"))
        events = list(SERVER.stream(TEXT, {"prompt": PROMPT, "max_tokens": 48, "temperature": 0, "stop": ["zzzz", stop]}))
        self.assertEqual(joined(events), answer["text"])

    def test_least_tokens(self):
        whole = self.ask(max_tokens=48, return_token_ids=True)["choices"][0]
        stops = {"stop_token_ids": whole["token_ids"][:3], "return_token_ids": True}
        self.assertEqual(self.ask(**stops)["choices"][0]["token_ids"], [])
        answer = self.ask(**stops, min_tokens=20)["choices"][0]
        self.assertGreaterEqual(len(answer["token_ids"]), 20)
        self.assertFalse(set(stops["stop_token_ids"]) & set(answer["token_ids"]))
        # A stop string that is in the first tokens and comes again ends the answer there.
        text = whole["text"]
        early = self.ask(max_tokens=48, stop=" ", min_tokens=10)["choices"][0]
        self.assertTrue(text.startswith(early["text"]) and " " in early["text"], early)
        self.assertEqual((early["finish_reason"], text[len(early["text"])]), ("stop", " "))

    def test_many_answers_and_prompts(self):
        answer = self.ask(n=3, temperature=1, seed=5, prompt=[PROMPT, "The queen"])
        self.assertEqual([c["index"] for c in answer["choices"]], list(range(6)))
        texts = [c["text"] for c in answer["choices"]]
        self.assertEqual(len(set(texts)), 6)
        alone = self.ask(n=3, temperature=1, seed=5, prompt="The queen")
        self.assertEqual([c["text"] for c in alone["choices"]], texts[3:])
        self.assertEqual(answer["usage"]["completion_tokens"], 6 * 24)
        self.assertEqual(answer["usage"]["prompt_tokens"], self.ask()["usage"]["prompt_tokens"] + alone["usage"]["prompt_tokens"])
        streamed = {}
        for event in SERVER.stream(TEXT, {"prompt": [PROMPT, "The queen"], "n": 3, "temperature": 1, "seed": 5, "max_tokens": 24}):
            for choice in event["choices"]:
                streamed[choice["index"]] = streamed.get(choice["index"], "") + choice["text"]
        self.assertEqual([streamed[i] for i in range(6)], texts)

    def test_seeds(self):
        first = self.ask(temperature=1, seed=11)["choices"][0]["text"]
        self.assertEqual(self.ask(temperature=1, seed=11)["choices"][0]["text"], first)
        self.assertNotEqual(self.ask(temperature=1, seed=12)["choices"][0]["text"], first)
        several = {self.ask(temperature=1)["choices"][0]["text"] for _ in range(4)}
        self.assertGreater(len(several), 1)

    def test_token_ids(self):
        _, tokens = SERVER.post("/tokenize", {"prompt": PROMPT})
        self.assertEqual(tokens["count"], len(tokens["tokens"]))
        self.assertEqual(tokens["max_model_len"], 512)
        answer = self.ask(prompt=tokens["tokens"], return_token_ids=True)
        self.assertEqual(answer["choices"][0]["text"], self.ask()["choices"][0]["text"])
        self.assertEqual(answer["choices"][0]["prompt_token_ids"], tokens["tokens"])
        expected = generate("-p", PROMPT, "-n", 24, "--temperature", 0)["token_ids"]
        self.assertEqual(answer["choices"][0]["token_ids"], expected)
        _, text = SERVER.post("/detokenize", {"tokens": expected})
        self.assertEqual(text["prompt"], answer["choices"][0]["text"])
        _, pieces = SERVER.post("/tokenize", {"content": "a king", "with_pieces": True, "add_special": False})
        self.assertEqual("".join(pieces["token_strs"]), "a king")

    def test_log_probabilities(self):
        expected = generate("-p", PROMPT, "-n", 6, "--temperature", 0, "--logprobs", 3)["logprobs"]
        answer = self.ask(max_tokens=6, logprobs=3)["choices"][0]["logprobs"]
        self.assertEqual(answer["token_logprobs"], [t["logprob"] for t in expected])
        self.assertEqual("".join(answer["tokens"]), self.ask(max_tokens=6)["choices"][0]["text"])
        self.assertEqual(answer["text_offset"][0], 0)
        self.assertEqual(answer["text_offset"][1], len(answer["tokens"][0]))
        for token, logprob, top in zip(answer["tokens"], answer["token_logprobs"], answer["top_logprobs"]):
            self.assertEqual(top[token], logprob)
            self.assertEqual(max(top.values()), logprob)
        body = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 6, "temperature": 0, "logprobs": True, "top_logprobs": 2}
        _, chat = SERVER.post(CHAT, body)
        content = chat["choices"][0]["logprobs"]["content"]
        self.assertEqual([t["logprob"] for t in content], answer["token_logprobs"])
        self.assertEqual([len(t["top_logprobs"]) for t in content], [2] * 6)
        self.assertEqual(bytes(content[0]["bytes"]).decode(), content[0]["token"])
        streamed = []
        for event in SERVER.stream(CHAT, body):
            streamed += ((event["choices"][0]["logprobs"] or {}).get("content")) or []
        self.assertEqual(streamed, content)

    def test_echo(self):
        plain = self.ask(max_tokens=4)
        answer = self.ask(max_tokens=4, echo=True, logprobs=1)["choices"][0]
        self.assertEqual(answer["text"], PROMPT + plain["choices"][0]["text"])
        logprobs = answer["logprobs"]
        self.assertEqual(len(logprobs["tokens"]), plain["usage"]["total_tokens"])
        self.assertIsNone(logprobs["token_logprobs"][0])
        self.assertTrue(all(v < 0 for v in logprobs["token_logprobs"][1:]))
        scored = self.ask(max_tokens=0, echo=True, logprobs=0)
        self.assertEqual(scored["choices"][0]["text"], PROMPT)
        self.assertEqual(scored["choices"][0]["logprobs"]["token_logprobs"], logprobs["token_logprobs"][:-4])
        self.assertEqual(scored["usage"]["completion_tokens"], 0)
        events = list(SERVER.stream(TEXT, {"prompt": PROMPT, "max_tokens": 4, "temperature": 0, "echo": True}))
        self.assertEqual(joined(events), answer["text"])

    def test_biases_and_penalties_reach_the_sampler(self):
        plain = self.ask(return_token_ids=True)["choices"][0]["token_ids"]
        biased = self.ask(return_token_ids=True, logit_bias={str(plain[0]): -100})["choices"][0]["token_ids"]
        self.assertNotEqual(biased[0], plain[0])
        forced = self.ask(return_token_ids=True, logit_bias={"77": 100}, max_tokens=3)["choices"][0]["token_ids"]
        self.assertEqual(forced, [77] * 3)
        # The order of the candidates: top-k of 1 is greedy at any temperature.
        plainly = {"return_token_ids": True, "temperature": 2, "dry_multiplier": 0}
        same = self.ask(**plainly, top_k=1)["choices"][0]["token_ids"]
        self.assertEqual(same, plain)
        same = self.ask(**plainly, min_p=1)["choices"][0]["token_ids"]
        self.assertEqual(same, plain)
        expected = generate("-p", PROMPT, "-n", 24, "--temperature", 0, "--frequency-penalty", 2, "--presence-penalty", 1,
                            "--repetition-penalty", 1.2)["token_ids"]
        penalised = self.ask(return_token_ids=True, frequency_penalty=2, presence_penalty=1, repetition_penalty=1.2)
        self.assertEqual(penalised["choices"][0]["token_ids"], expected)
        expected = generate("-p", PROMPT, "-n", 48, "--temperature", 0, "--dry-multiplier", 5, "--dry-allowed-length", 1,
                            "--dry-base", 2, "--dry-penalty-last-n", 40, "--dry-sequence-breaker", "none")["token_ids"]
        varied = self.ask(return_token_ids=True, max_tokens=48, dry_multiplier=5, dry_allowed_length=1, dry_base=2,
                          dry_penalty_last_n=40, dry_sequence_breakers=[])["choices"][0]["token_ids"]
        self.assertEqual(varied, expected)
        self.assertNotEqual(varied[:24], plain)

    def test_a_full_context_ends_with_length(self):
        answer = self.ask(prompt=[5] * 500, max_tokens=100, ignore_eos=True)
        self.assertEqual(answer["choices"][0]["finish_reason"], "length")
        self.assertEqual(answer["usage"]["completion_tokens"], 12)
        status, answer = SERVER.post(TEXT, {"prompt": [5] * 512})
        self.assertEqual((status, answer["error"]["code"]), (400, "context_length_exceeded"))

    def test_prefixes_are_cached(self):
        prompt = [9] + [(i * 37) % 4000 + 20 for i in range(300)]
        first = self.ask(prompt=prompt)
        again = self.ask(prompt=prompt)
        self.assertEqual(again["choices"][0]["text"], first["choices"][0]["text"])
        self.assertEqual(first["usage"]["prompt_tokens_details"]["cached_tokens"], 0)
        self.assertGreaterEqual(again["usage"]["prompt_tokens_details"]["cached_tokens"], 128)

    def test_models_health_version_metrics_page(self):
        _, models = SERVER.post(TEXT, {"prompt": "x", "max_tokens": 1})
        status, _, content = SERVER.request("GET", "/v1/models")
        model = json.loads(content)["data"][0]
        self.assertEqual((status, model["id"], model["max_model_len"]), (200, models["model"], 512))
        self.assertEqual(json.loads(SERVER.request("GET", "/v1/models/storyteller")[2])["id"], "storyteller")
        self.assertEqual(SERVER.request("GET", "/v1/models/other")[0], 404)
        self.assertEqual(json.loads(SERVER.request("GET", "/health?x=1")[2])["status"], "ok")
        self.assertRegex(json.loads(SERVER.request("GET", "/version")[2])["version"], r"^\d+\.\d+\.\d+")
        _, headers, content = SERVER.request("GET", "/metrics")
        self.assertEqual(headers["content-type"], "text/plain; version=0.0.4; charset=utf-8")
        names = set()
        for line in content.decode().splitlines():
            if line.startswith("# TYPE "):
                names.add(line.split()[2])
            elif not line.startswith("#"):
                self.assertRegex(line, r'^lathe:[a-z0-9_]+\{model_name="storyteller",engine="0"[^}]*\} [0-9.e+-]+$')
        for name in ("num_requests_running", "time_to_first_token_seconds", "kv_cache_usage_perc", "prefix_cache_hits_total",
                     "request_success_total", "e2e_request_latency_seconds", "generation_tokens_total"):
            self.assertIn("lathe:" + name, names)
        status, headers, content = SERVER.request("GET", "/")
        self.assertEqual((status, headers["content-type"]), (200, "text/html; charset=utf-8"))
        self.assertIn(b"<!doctype html>", content[:200].lower())
        self.assertIn("default-src 'none'", headers["content-security-policy"])
        status, _, content = SERVER.request("GET", "/", headers={"If-None-Match": headers["etag"]})
        self.assertEqual((status, content), (304, b""))

    def test_metrics_count(self):
        before = SERVER.metrics()
        self.ask(max_tokens=7, n=2, temperature=1, seed=5, ignore_eos=True)
        after = SERVER.metrics()
        grown = {name: after[name] - before.get(name, 0) for name in after}
        self.assertEqual(grown["generation_tokens_total"], 14)
        self.assertEqual(grown["request_success_total"], 2)
        self.assertEqual(grown["time_to_first_token_seconds_count"], 2)
        self.assertEqual(grown["time_per_output_token_seconds_count"], 12)
        self.assertEqual(grown["e2e_request_latency_seconds_count"], 1)

    def test_neighbours_do_not_change_an_answer(self):
        prompts = [PROMPT, "The queen said", "In a forest", "A fox", "Two brothers", "The sea", "Snow", "Gold and"]
        alone = {p: self.ask(prompt=p, max_tokens=40)["choices"][0]["text"] for p in prompts}
        found, threads = [], []

        def one(prompt):
            found.append((prompt, joined(SERVER.stream(TEXT, {"prompt": prompt, "max_tokens": 40, "temperature": 0}))))

        for prompt in prompts * 4:
            threads.append(threading.Thread(target=one, args=(prompt,)))
            threads[-1].start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(found), 32)
        for prompt, text in found:
            self.assertEqual(text, alone[prompt], prompt)

    def test_a_slow_reader_gets_everything(self):
        body = {"prompt": PROMPT, "max_tokens": 400, "temperature": 0, "ignore_eos": True, "logprobs": 20}
        whole = joined(SERVER.stream(TEXT, body))
        raw = json.dumps({**body, "stream": True}).encode()
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", SERVER.port))
        slow.settimeout(60)
        slow.sendall(b"POST /v1/completions HTTP/1.0\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(raw) + raw)
        # Long enough that the whole answer is there before any of it is read; it is some 800 KB.
        SERVER.wait_idle(30 * SLOWNESS)
        answer = b""
        while part := slow.recv(65536):
            answer += part
        slow.close()
        text = ""
        for line in answer.split(b"\n"):
            if line.startswith(b"data: {"):
                text += "".join(c["text"] for c in json.loads(line[6:])["choices"])
        self.assertEqual(text, whole)
        self.assertTrue(answer.endswith(b"data: [DONE]\n\n"))


class Operation(unittest.TestCase):
    """Servers of their own, with options."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def serve(self, *arguments, **keywords):
        server = Server(PROGRAM, *arguments, **keywords)
        self.addCleanup(lambda: server.process.poll() is None and server.stop())
        return server

    def file(self, name, text):
        path = pathlib.Path(self.folder.name) / name
        path.write_text(text, encoding="utf-8")
        return path

    def test_keys(self):
        keys = self.file("keys", "# ours\nsecret-key-one\n\nsecret-key-two\n")
        server = self.serve("--api-key-file", keys)
        right = [{"Authorization": "Bearer secret-key-one"}, {"Authorization": "bearer secret-key-two"}, {"X-Api-Key": "secret-key-two"}]
        wrong = [{}, {"Authorization": ""}, {"Authorization": "Bearer"}, {"Authorization": "Bearer "},
                 {"Authorization": "Bearer secret-key-on"}, {"Authorization": "Bearer secret-key-one "[:-1] + "x"},
                 {"Authorization": "Basic secret-key-one"}, {"Authorization": "secret-key-one"},
                 {"Authorization": "Bearer SECRET-KEY-ONE"}, {"Authorization": "Bearer # ours"}, {"X-Api-Key": "x"}]
        for headers in right:
            self.assertEqual(server.request("GET", "/v1/models", headers=headers)[0], 200, headers)
        answers = set()
        for headers in wrong:
            for method, path in (("GET", "/v1/models"), ("GET", "/metrics"), ("POST", CHAT), ("GET", "/nothing"),
                                 ("GET", "//v1/models"), ("GET", "/version"), ("POST", "/tokenize"), ("DELETE", "/x")):
                status, found, content = server.request(method, path, headers=headers)
                self.assertEqual(status, 401, (path, headers))
                self.assertEqual(found["www-authenticate"], "Bearer")
                answers.add(content)
        self.assertEqual(len(answers), 1)
        self.assertEqual(server.request("GET", "/health")[0], 200)
        self.assertEqual(server.request("GET", "/")[0], 200)
        self.assertEqual(server.stop(), 0)
        self.assertNotIn("secret", "".join(server.log))

    def test_refusals_at_the_start(self):
        empty = self.file("empty", "# nothing\n")
        short = self.file("short", "abc\n")
        taken = self.serve()
        for arguments, code, mention in (
            (["--host", "0.0.0.0"], 2, "--api-key-file"),
            (["--host", "example", "--allow-unauthenticated"], 2, "IP address"),
            (["--api-key-file", empty], 2, "at least one key"),
            (["--api-key-file", short], 2, "8 visible"),
            (["--api-key-file", "/nonexistent"], 1, "/nonexistent"),
            (["--port", str(taken.port)], 1, "in use"),
            (["--chat-template", self.file("t", "{% for %}")], 1, "line 1"),
        ):
            with self.subTest(arguments):
                ran = subprocess.run([PROGRAM, "serve", *map(str, arguments)], capture_output=True, text=True,
                                     stdin=subprocess.DEVNULL, timeout=60)
                errors = [line for line in ran.stderr.splitlines() if line.startswith("lathe: error: ")]
                self.assertEqual((ran.returncode, len(errors)), (code, 1), ran.stderr)
                self.assertIn(mention, errors[0])

    def test_cross_origin(self):
        server = self.serve("--cors-origin", "https://chat.example", "--allow-host", "lathe.example")
        host = {"Host": "lathe.example"}
        status, headers, _ = server.request("OPTIONS", CHAT, headers={**host, "Origin": "https://chat.example",
                                            "Access-Control-Request-Method": "POST"})
        self.assertEqual((status, headers["access-control-allow-origin"]), (204, "https://chat.example"))
        self.assertIn("authorization", headers["access-control-allow-headers"].lower())
        self.assertEqual((headers["allow"], headers["access-control-allow-methods"]), ("POST, OPTIONS", "POST, OPTIONS"))
        asked = "authorization,content-type,x-stainless-lang"  # as OpenAI's client for browsers does
        _, headers, _ = server.request("OPTIONS", CHAT, headers={**host, "Origin": "https://chat.example",
                                       "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": asked})
        self.assertEqual(headers["access-control-allow-headers"], asked)
        _, headers, _ = server.request("OPTIONS", "/v1/models", headers={**host, "Origin": "https://other.example"})
        self.assertEqual(headers["allow"], "GET, HEAD, OPTIONS")
        self.assertNotIn("access-control-allow-headers", headers)
        status, headers, _ = server.request("GET", "/v1/models", headers={**host, "Origin": "https://chat.example"})
        self.assertEqual((status, headers["access-control-allow-origin"]), (200, "https://chat.example"))
        self.assertNotIn("access-control-allow-credentials", headers)
        status, headers, _ = server.request("GET", "/v1/models", headers={**host, "Origin": "https://other.example"})
        self.assertEqual(status, 403)
        self.assertNotIn("access-control-allow-origin", headers)
        # The page of the server itself.
        self.assertEqual(server.request("GET", "/v1/models", headers={**host, "Origin": "http://lathe.example"})[0], 200)

    def test_the_size_of_a_step_changes_no_answer(self):
        prompts = [[(i * 37 + seed) % 4000 + 20 for i in range(length)] for seed, length in enumerate((1, 7, 100, 300, 440))]
        body = {"prompt": prompts, "max_tokens": 40, "temperature": 1, "seed": 3, "n": 3, "logprobs": 1}
        wanted = SERVER.post(TEXT, body)[1]["choices"]
        scratch = []
        for size in (5, 130, 512):
            server = self.serve("--batch-tokens", size)
            self.assertEqual(server.post(TEXT, body)[1]["choices"], wanted, size)
            if size == 5:
                self.assertGreater(server.metrics()["engine_steps_total"], 200)
            for number, unit in re.findall(r"memory plan: .* scratch ([\d.]+) (\wiB),", "".join(server.log)):
                scratch.append(float(number) * {"KiB": 1, "MiB": 1024}[unit])
            self.assertEqual(server.stop(), 0)
        self.assertEqual(len(scratch), 3)
        self.assertLess(scratch[0], scratch[1])
        self.assertLess(scratch[1], scratch[2])

    def test_templates(self):
        server = self.serve("--chat-template", self.file("chat.jinja", TEMPLATE), "--alias", "teller")
        body = {"messages": [{"role": "developer", "content": "S"}, {"role": "user", "content": "Hi"}]}
        status, answer = server.post("/apply-template", body)
        self.assertEqual(status, 200, answer)
        self.assertTrue(answer["prompt"].endswith("<system>S\n<user>Hi\n<assistant>"), answer)
        _, answer = server.post("/apply-template", {**body, "chat_template_kwargs": {"thinking": True}})
        self.assertTrue(answer["prompt"].endswith("[thinking True]"), answer)
        _, answer = server.post("/apply-template", {**body, "reasoning_effort": "none"})
        self.assertTrue(answer["prompt"].endswith("[thinking False]"), answer)
        _, answer = server.post("/apply-template", {**body, "add_generation_prompt": False})
        self.assertTrue(answer["prompt"].endswith("<user>Hi\n"), answer)
        _, ids = server.post("/tokenize", body)
        status, answer = server.post(CHAT, {**body, "max_tokens": 4, "model": "whatever"})
        self.assertEqual((status, answer["model"]), (200, "teller"))
        self.assertEqual(answer["usage"]["prompt_tokens"], ids["count"])

    def test_a_full_queue_refuses(self):
        server = self.serve("--max-queue", "4", "--parallel", "1")
        body = {"prompt": PROMPT, "max_tokens": 300, "ignore_eos": True}
        results, threads = [], []

        def one():
            status, headers, content = server.request("POST", TEXT, body)
            results.append((status, headers, content))

        for _ in range(24):
            threads.append(threading.Thread(target=one))
            threads[-1].start()
        for thread in threads:
            thread.join()
        statuses = sorted(status for status, _, _ in results)
        self.assertEqual(set(statuses), {200, 429})
        self.assertGreaterEqual(statuses.count(200), 4)
        for status, headers, content in results:
            if status == 429:
                self.assertEqual(headers["retry-after"], "1")
                self.assertEqual(json.loads(content)["error"]["type"], "rate_limit_error")
        found = server.wait_idle()
        self.assertEqual(found["num_requests_preparing"], 0)
        self.assertEqual(server.request("POST", TEXT, {**body, "n": 4, "max_tokens": 2})[0], 200)

    def test_a_body_may_be_limited(self):
        server = self.serve("--max-body", "1")
        self.assertEqual(server.request("POST", TEXT, b"x" * (1 << 20))[0], 400)
        status, _, content = server.request("POST", TEXT, b"x" * ((1 << 20) + 1))
        self.assertEqual((status, json.loads(content)["error"]["code"]), (413, "request_too_large"))
        with server.connect() as connection:  # in chunks, whose sum nobody has announced
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
            try:
                for _ in range(40):
                    connection.sendall(b"8000\r\n" + b"x" * 32768 + b"\r\n")
            except OSError:
                pass
            self.assertIn(b" 413 ", connection.recv(1000))

    def test_sigterm_lets_answers_end(self):
        server = self.serve()
        texts, begun = [], threading.Event()

        def one():
            events = []
            for event in server.stream(TEXT, {"prompt": PROMPT, "max_tokens": 450, "temperature": 0, "ignore_eos": True}):
                events.append(event)
                begun.set()
            texts.append(joined(events))

        threads = [threading.Thread(target=one) for _ in range(16)]
        for thread in threads:
            thread.start()
        self.assertTrue(begun.wait(30))
        idle = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        self.assertEqual(idle.recv(10), b"")
        idle.close()
        if server.process.poll() is None:
            self.assertEqual(server.request("GET", "/health")[0], 503)
            status, headers, _ = server.request("POST", TEXT, {"prompt": "x"})
            self.assertEqual(status, 503)
            self.assertIn("retry-after", headers)
        for thread in threads:
            thread.join()
        self.assertEqual(server.process.wait(30), 0)
        self.assertEqual(len(texts), 16)
        self.assertEqual(len(set(texts)), 1)

    def test_the_time_to_drain_is_limited(self):
        server = self.serve("--drain", "1", "--cache-type", "f32", "-t", "1")
        results = []

        def one():
            results.append(server.request("POST", TEXT, {"prompt": PROMPT, "max_tokens": 450, "n": 128, "ignore_eos": True})[0])

        threads = [threading.Thread(target=one) for _ in range(2)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        begin = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        self.assertEqual(server.process.wait(30 * SLOWNESS), 0)
        self.assertLess(time.monotonic() - begin, 5 * SLOWNESS)
        for thread in threads:
            thread.join()
        self.assertEqual(len(results), 2)
        self.assertTrue(set(results) <= {200, 503}, results)

    def test_a_second_signal_ends_at_once(self):
        server = self.serve()
        thread = threading.Thread(target=lambda: self.assertRaises(Exception, server.request, "POST", TEXT, {
            "prompt": PROMPT, "max_tokens": 450, "n": 128, "ignore_eos": True}))
        thread.start()
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        self.assertEqual(server.process.wait(10 * SLOWNESS), 143)
        thread.join()

    def test_service_managers_are_told(self):
        path = str(pathlib.Path(self.folder.name) / "notify")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        listener.bind(path)
        listener.settimeout(30)
        server = self.serve(environment={"NOTIFY_SOCKET": path})
        self.assertEqual(listener.recv(100), b"READY=1")
        server.process.send_signal(signal.SIGTERM)
        self.assertEqual(listener.recv(100), b"STOPPING=1")
        self.assertEqual(server.process.wait(30), 0)
        listener.close()

    def test_log_lines(self):
        server = self.serve("--log-format", "json")
        server.post(TEXT, {"prompt": PROMPT, "max_tokens": 3})
        server.request("GET", "/no%0asuch")
        self.assertEqual(server.stop(), 0)
        lines = [json.loads(line) for line in server.log]
        for line in lines:
            self.assertRegex(line["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        (line,) = [line for line in lines if line.get("path") == TEXT]
        self.assertEqual((line["status"], line["completion_tokens"], line["level"]), (200, 3, "info"))
        text = self.serve()
        text.post(TEXT, {"prompt": PROMPT, "max_tokens": 3})
        text.stop()
        self.assertTrue(any(re.search(r"^lathe: info: 127.0.0.1 POST /v1/completions 200, ", line) for line in text.log), text.log)


def main():
    global PROGRAM, SOURCE, SERVER, SLOWNESS
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", required=True)
    parser.add_argument("--source", type=pathlib.Path, required=True)
    parser.add_argument("--sanitized", action="store_true", help="the program has sanitizers: times are not looked at")
    parser.add_argument("tests", nargs="*")
    arguments = parser.parse_args()
    PROGRAM, SOURCE = os.path.abspath(arguments.program), arguments.source
    SLOWNESS = 10.0 if arguments.sanitized else 2.0
    SERVER = Server(PROGRAM)
    result = unittest.main(argv=[sys.argv[0], *arguments.tests], exit=False, verbosity=1).result
    code = SERVER.stop()
    if code != 0:
        print("exit code", code, "".join(SERVER.log[-30:]), file=sys.stderr)
    sys.exit(0 if result.wasSuccessful() and code == 0 else 1)


if __name__ == "__main__":
    main()
