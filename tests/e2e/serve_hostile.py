#!/usr/bin/env python3
"""Malformed and hostile requests to lathe serve: each gets the status that it deserves, or a clean close, soon, and the
server is well after each.

    serve_hostile.py --program lathe

Raw sockets for what HTTP libraries would not send.
"""

import argparse
import json
import socket
import struct
import sys
import threading
import time
import unittest

from serve_server import Server

PROGRAM = ""
SLOWNESS = 1.0
SERVER = None

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
USER = [{"role": "user", "content": "hi"}]


def chat(**fields):
    return json.dumps({"messages": USER, "max_tokens": 1, **fields})


def text(**fields):
    return json.dumps({"prompt": "hi", "max_tokens": 1, **fields})


def messages(*given):
    return json.dumps({"messages": list(given), "max_tokens": 1})


def tool(**function):
    return chat(tools=[{"type": "function", "function": function}])


# (path, body, param that the error names or None)
def bad_json():
    yield from (
        (CHAT, body, None)
        for body in (
            "", " ", "{", "}", "[]", "null", "true", "1", '"text"', "{'messages': []}", '{"messages": [}',
            '{"messages": [],}', '{"a": 1} x', '{"a": 01}', '{"a": +1}', '{"a": .5}', '{"a": 1.}', '{"a": NaN}',
            '{"a": Infinity}', '{"a": -Infinity}', '{"a": 1e999}x', '{"a": "\n"}', '{"a": "\\x41"}', '{"a": "\\ud800"}',
            '{"a": "\\u12"}', '{"a": "', '{"a": tru}', '{"a": 1, "a": 2}', "[" * 100000, '{"a":' * 5000,
            '{"a":' * 70 + "1" + "}" * 70, "\x00", '{"a": "\x00"}', "// comment\n{}", '{"a": 1}{"b": 2}', "﻿{}x",
        )
    )
    for raw in (b'{"a": "\xff"}', b'{"a": "\xc0\xaf"}', b'{"a": "\xed\xa0\x80"}', b"\x89PNG\r\n\x1a\n", b'{"\x80": 1}',
                b"\xff\xfe{\x00}\x00", b"\x1f\x8b\x08\x00" + b"\x00" * 50):
        yield CHAT, raw, None


def bad_fields():
    numbers = {
        "temperature": ["1", True, -0.1, 2.1, 1e308, [], {}],
        "top_p": ["1", 0, -1, 1.01, False, [1]],
        "top_k": ["1", 1.5, -2, 2**31, 2**63, 1e300, {}],
        "min_p": ["0", -0.1, 1.1],
        "presence_penalty": ["0", -2.1, 2.1, True],
        "frequency_penalty": ["0", -2.1, 2.1, []],
        "repetition_penalty": ["1", 0, -1, 1e9],
        "repeat_penalty": [0],
        "dry_multiplier": ["0", -0.1, 101, True],
        "dry_base": [0.9, 101, "2"],
        "dry_allowed_length": [0, 1.5, 2**21, "2"],
        "dry_penalty_last_n": [-2, 0.5, 2**31],
        "dry_sequence_breakers": [1, {}, [""], [1], ["a"] * 65, ["a" * 1025]],
        "min_tokens": ["1", -1, 2, 2**31, 1.5, True],
        "seed": ["1", 1.5, 2**64, 1e30, [], True],
        "n": ["1", 0, -1, 129, 2**31, 2**63, 1e18, 1.5, True, [1]],
        "stream": ["true", 1, 0, [], {}],
        "ignore_eos": ["false", 1],
        "return_token_ids": [1],
        "return_progress": [1, "true", [], {}],
        "prompt_logprobs": [-1, 21, "1", 2**40],
    }
    for name, values in numbers.items():
        for value in values:
            yield CHAT, chat(**{name: value}), name
            if len(values) < 6:
                yield TEXT, text(**{name: value}), name
    for value in ("1", 0, -1, 2**31, 2**63, 1e18, 1.5, True, [1], {}):
        yield CHAT, chat(max_tokens=value), "max_tokens"
    for value in (0, -5, "x"):
        yield CHAT, chat(max_completion_tokens=value), "max_completion_tokens"
    for value in (-1, 2**31, 1.5, "16", [16]):
        yield TEXT, text(max_tokens=value), "max_tokens"
    for value in ("true", 1, 20, {}, []):
        yield CHAT, chat(logprobs=value), "logprobs"
    for value in (-1, 21, 2**40, "5", 1.5):
        yield CHAT, chat(logprobs=True, top_logprobs=value), "top_logprobs"
    yield CHAT, chat(top_logprobs=5), "top_logprobs"
    for value in (-1, 21, True, "1"):
        yield TEXT, text(logprobs=value), "logprobs"
    for value in (1, {}, [1], [""], [None], [["a"]], "", ["a"] * 17, ["x" * 5000], "x" * 100000, ["a", 1]):
        yield CHAT, chat(stop=value), "stop"
    for value in ("1", [-1], [4096], [2**63], ["a"], [1.5], list(range(100)), {"1": 1}):
        yield CHAT, chat(stop_token_ids=value), "stop_token_ids"
    for value in ([], "1", {"a": 1}, {"-1": 1}, {"4096": 1}, {"99999999999999999999": 1}, {"1": "x"}, {"1": 101},
                  {"1": -101}, {"1": None}, {"1": True}, {" 1": 1}, {"1.0": 1}, {"0x1": 1}, {"": 1},
                  {str(i): 1 for i in range(1025)}):
        yield CHAT, chat(logit_bias=value), "logit_bias"
    for value in (1, "x", [], True):
        yield CHAT, chat(stream=True, stream_options=value), "stream_options"
    yield CHAT, chat(stream=True, stream_options={"include_usage": 1}), "stream_options.include_usage"
    yield CHAT, chat(stream=True, stream_options={"continuous_usage_stats": "x"}), "stream_options.continuous_usage_stats"
    yield CHAT, chat(stream_options={"include_usage": True}), "stream_options"
    for value in (1, "json_object", [], {}, {"type": 1}, {"type": None}):
        yield CHAT, chat(response_format=value), "response_format"
    yield CHAT, chat(response_format={"type": "xml"}), "response_format.type"
    for value in ({"type": "json_schema"}, {"type": "json_schema", "json_schema": 1},
                  {"type": "json_schema", "json_schema": {"name": "x"}},
                  {"type": "json_schema", "json_schema": {"name": "x", "schema": "{}"}}):
        yield CHAT, chat(response_format=value), "response_format.json_schema"
    for name in ("suffix", "grammar", "functions", "guided_json", "structured_outputs"):
        yield TEXT, text(**{name: "x"}), name
    yield TEXT, text(n=5, best_of=2), "best_of"
    yield TEXT, text(stream=True, best_of=2), "best_of"
    yield TEXT, text(best_of=2**40), "best_of"
    for value in ({}, [], 1, True, [[]], [1, "a"], ["a", 1], [[1], "a"], [-1], [4096], [2**31], [2**63], [1.5], [None],
                  [[["a"]]], ["a"] * 129, [[1]] * 129, [True]):
        yield TEXT, text(prompt=value), "prompt"
    yield TEXT, json.dumps({"max_tokens": 1}), "prompt"
    yield TEXT, text(prompt=["a"] * 100, n=2), "n"
    yield TEXT, text(prompt="a " * 3000), None
    yield TEXT, text(prompt=[5] * 512), None
    yield TEXT, text(prompt="x" * 3_000_000), None
    yield TEXT, text(prompt="\n" * 2_000_000), None
    yield CHAT, chat(model=1), "model"
    yield CHAT, chat(model="x" * 5000), "model"
    yield CHAT, chat(user=["x"]), "user"


def bad_messages():
    yield CHAT, json.dumps({"max_tokens": 1}), "messages"
    for value in ([], {}, "hi", 1, True, None):
        yield CHAT, chat(messages=value), "messages"
    yield CHAT, chat(messages=[{"role": "user", "content": "x"}] * 20000), "messages"
    for value in (1, "hi", None, [], True):
        yield CHAT, messages(value), "messages[0]"
    for role in (None, 1, "", "root", "USER", "function", ["user"], "user\x00", "user ", "../../etc/passwd"):
        yield CHAT, messages({"role": role, "content": "x"}), "messages[0].role"
    yield CHAT, messages({"content": "x"}), "messages[0].role"
    for content in (1, True, {}, None, [1], ["x"], [{}], [{"type": 1}], [{"type": "text"}], [{"type": "text", "text": 1}],
                    [{"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest/meta-data/"}}],
                    [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}],
                    [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}],
                    [{"type": "file", "file": {"file_id": "../../x"}}]):
        yield CHAT, messages({"role": "user", "content": content}), "messages[0].content"
    yield CHAT, messages({"role": "user"}), "messages[0].content"
    yield CHAT, messages(USER[0], {"role": "user", "content": 1}), "messages[1].content"
    for calls in (1, "x", {}, [1], [{}], [{"function": {}}], [{"function": {"name": 1}}],
                  [{"function": {"name": "f", "arguments": 1}}], [{"function": {"name": "f"}}] * 200):
        yield CHAT, messages({"role": "assistant", "content": None, "tool_calls": calls}), "messages[0].tool_calls"
    for name in ("name", "tool_call_id", "reasoning_content"):
        yield CHAT, messages({"role": "user", "content": "x", name: 1}), f"messages[0].{name}"
    for value in (1, "x", {}, [{"type": "function", "function": {"name": "f"}}] * 129):
        yield CHAT, chat(tools=value), "tools"
    for value in ([1], [{}], [{"type": "x"}], [{"type": 1, "function": {"name": "f"}}]):
        yield CHAT, chat(tools=value), "tools[0].type"
    for name in (None, 1, "", "a b", "x" * 65, "a/b", "é", "f\n"):
        yield CHAT, tool(name=name), "tools[0].function.name"
    yield CHAT, chat(tools=[{"type": "function", "function": {"name": "f"}}] * 2), "tools[1].function.name"
    yield CHAT, tool(name="f", parameters="x"), "tools[0].function.parameters"
    yield CHAT, tool(name="f", description=1), "tools[0].function.description"
    for value in (1, "always", {}, {"type": "function"}, {"type": "function", "function": {"name": "g"}}, "required"):
        yield CHAT, chat(tool_choice=value), "tool_choice"
    for value in (1, "x", [], True, {"messages": []}, {"tools": []}, {"bos_token": "<s>"}, {"x_token": "<s>"}):
        yield CHAT, chat(chat_template_kwargs=value), "chat_template_kwargs"
    for value in (1, "extreme", []):
        yield CHAT, chat(reasoning_effort=value), "reasoning_effort"
    yield CHAT, chat(chat_template="{% for x in range(10**9) %}{% endfor %}"), "chat_template"
    yield CHAT, messages({"role": "user", "content": "x" * 3_000_000}), None


def bad_others():
    for body in ("{}", '{"prompt": 1}', '{"prompt": "a", "messages": []}', '{"content": []}',
                 '{"messages": [{"role": "x", "content": ""}]}', '{"prompt": "a", "add_special_tokens": 1}'):
        yield "/tokenize", body, False
    for body in ("{}", '{"tokens": 1}', '{"tokens": ["a"]}', '{"tokens": [-1]}', '{"tokens": [4096]}', '{"tokens": [1e99]}'):
        yield "/detokenize", body, "tokens"
    for body in ("{}", '{"messages": 1}', '{"messages": [1]}'):
        yield "/apply-template", body, False


def raw_cases():
    """(name, bytes, statuses that are right; 0: a close without an answer)."""
    host = b"Host: 127.0.0.1\r\n"
    body = chat().encode()
    post = b"POST /v1/chat/completions HTTP/1.1\r\n" + host

    yield "empty line", b"\r\n\r\n", {400, 0}
    yield "binary", bytes(range(256)) * 4, {400, 0}
    yield "TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200 + b"\r\n\r\n", {400, 0}
    yield "no version", b"GET /health\r\n\r\n", {400, 505, 0}
    yield "HTTP/0.9", b"GET /health HTTP/0.9\r\n\r\n", {400, 505}
    yield "HTTP/2.0", b"GET /health HTTP/2.0\r\n" + host + b"\r\n", {400, 505}
    yield "HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 505}
    yield "HTTP/9.9", b"GET /health HTTP/9.9\r\n" + host + b"\r\n", {400, 505}
    yield "two spaces", b"GET  /health HTTP/1.1\r\n" + host + b"\r\n", {400, 404}
    yield "bare LF", b"GET /health HTTP/1.1\n" + host + b"\n\n\r\n\r\n", {400, 505, 0}
    yield "blank in a name", b"GET /health HTTP/1.1\r\nHo st: x\r\n\r\n", {400}
    yield "no colon", b"GET /health HTTP/1.1\r\n" + host + b"nonsense\r\n\r\n", {400}
    yield "zero byte in a value", b"GET /health HTTP/1.1\r\n" + host + b"X: a\x00b\r\n\r\n", {400}
    yield "no Host", b"GET /health HTTP/1.1\r\n\r\n", {400}
    yield "two Hosts", b"GET /health HTTP/1.1\r\n" + host + host + b"\r\n", {400}
    yield "foreign Host", b"GET /health HTTP/1.1\r\nHost: attacker.example\r\n\r\n", {403}
    yield "foreign Host with our port", b"GET /v1/models HTTP/1.1\r\nHost: attacker.example:80\r\n\r\n", {403}
    yield "foreign Origin", post + b"Origin: http://attacker.example\r\nContent-Length: %d\r\n\r\n" % len(body) + body, {403}
    yield "opaque Origin", post + b"Origin: null\r\nContent-Length: %d\r\n\r\n" % len(body) + body, {403}
    yield "long target", b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + host + b"\r\n", {414}
    yield "very long target", b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\n" + host + b"\r\n", {414, 431}
    yield "large field", b"GET /health HTTP/1.1\r\n" + host + b"X: " + b"a" * 100000 + b"\r\n\r\n", {431}
    yield "many fields", b"GET /health HTTP/1.1\r\n" + host + b"X: y\r\n" * 200 + b"\r\n", {431}
    yield "a flood of fields", b"GET /health HTTP/1.1\r\n" + host + b"X: y\r\n" * 20000 + b"\r\n", {431}
    yield "long method", b"G" * 5000 + b" /health HTTP/1.1\r\n" + host + b"\r\n", {400, 405}
    for method in ("DELETE", "PUT", "PATCH", "TRACE", "CONNECT", "BREW"):
        yield method, f"{method} /health HTTP/1.1\r\n".encode() + host + b"\r\n", {405}
    yield "GET on POST", b"GET /v1/chat/completions HTTP/1.1\r\n" + host + b"\r\n", {405}
    yield "POST on GET", b"POST /v1/models HTTP/1.1\r\n" + host + b"Content-Length: 0\r\n\r\n", {405}
    for path in ("/nothing", "/v1", "/v1/", "//v1/models", "/v1/models/../../etc/passwd", "/../../etc/passwd",
                 "/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc/passwd", "/v1/chat/completions/", "/V1/models",
                 "/metrics/", "/static/../../../etc/shadow", "/.git/config", "/admin", "/v1/models/other",
                 "/v1/models/%", "/v1/models/%zz", "/v1/models/%00", "*", "http://127.0.0.1/v1/models", "/v1/files"):
        yield f"path {path}", f"GET {path} HTTP/1.1\r\n".encode() + host + b"\r\n", {404}
    yield "no length", post + b"\r\n", {411}
    for length in (b"-1", b"+5", b"0x10", b"1e3", b"5 5", b"5,5", b"", b"99999999999999999999999", b"abc", b"5;"):
        yield f"length {length!r}", post + b"Content-Length: " + length + b"\r\n\r\n" + body, {400, 413, 411, 0}
    yield "two lengths", post + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + body, {400}
    yield "length and chunks", post + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400}
    yield "chunks and length", post + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", {400}
    yield "too large", post + b"Content-Length: 8388609\r\n\r\n", {413}
    yield "far too large", post + b"Content-Length: 18446744073709551615\r\n\r\n", {413, 400}
    yield "bad chunk size", post + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", {400}
    yield "negative chunk", post + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n{}\r\n0\r\n\r\n", {400}
    yield "huge chunk", post + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}\r\n", {400, 413}
    yield "chunk without end", post + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}XX0\r\n\r\n", {400}
    yield "gzip", post + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", {415}
    yield "form data", post + b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 2\r\n\r\n{}", {415}
    yield "unknown expectation", post + b"Expect: 200-maybe\r\nContent-Length: 2\r\n\r\n{}", {417}
    yield "unknown transfer coding", post + b"Transfer-Encoding: gzip\r\n\r\n", {400, 411, 501}


class Hostile(unittest.TestCase):
    def setUp(self):
        self.log_mark = len(SERVER.log)

    def tearDown(self):
        self.assertIsNone(SERVER.process.poll(), "the server is gone:\n" + "".join(SERVER.log[-20:]))
        self.assertEqual(SERVER.request("GET", "/health")[0], 200)
        errors = [line for line in SERVER.log[self.log_mark:] if "internal" in line]
        self.assertEqual(errors, [])

    def check_error(self, status, content, param):
        self.assertEqual(status, 400, content)
        error = json.loads(content)["error"]
        self.assertEqual(set(error), {"message", "type", "param", "code"})
        self.assertEqual(error["type"], "invalid_request_error")
        self.assertLess(len(error["message"]), 500)
        if param is not False:
            self.assertEqual(error["param"], param, error)

    def run_cases(self, cases):
        count = 0
        for path, body, param in cases:
            count += 1
            shown = body[:100] if len(body) > 100 else body
            with self.subTest(path=path, body=shown):
                begin = time.monotonic()
                status, _, content = SERVER.request("POST", path, body)
                seconds = time.monotonic() - begin
                self.check_error(status, content, param)
                self.assertLess(seconds, 1.0 * SLOWNESS)
        return count

    def test_bad_json(self):
        self.assertGreater(self.run_cases(bad_json()), 40)

    def test_bad_fields(self):
        self.assertGreater(self.run_cases(bad_fields()), 150)

    def test_bad_messages(self):
        self.assertGreater(self.run_cases(bad_messages()), 70)

    def test_bad_requests_of_other_endpoints(self):
        self.run_cases(bad_others())

    def test_raw(self):
        for name, sent, statuses in raw_cases():
            with self.subTest(name):
                begin = time.monotonic()
                with SERVER.connect() as connection:
                    try:
                        connection.sendall(sent)
                        connection.shutdown(socket.SHUT_WR)
                    except OSError:
                        pass  # it had enough
                    answer = b""
                    try:
                        while True:
                            part = connection.recv(65536)
                            if not part:
                                break
                            answer += part
                    except ConnectionResetError:
                        pass
                status = int(answer.split(b" ", 2)[1]) if answer else 0
                self.assertIn(status, statuses, answer[:300])
                self.assertLess(time.monotonic() - begin, 1.0 * SLOWNESS)

    def test_unknown_fields_do_not_matter(self):
        status, answer = SERVER.post(CHAT, chat(some_new_field={"a": [1]}, metadata={"k": "v"}, store=False, stop=None, n=None))
        self.assertEqual(status, 200, answer)

    def test_limits_inside_are_served(self):
        for body in (chat(temperature=0), chat(temperature=2), chat(top_p=1e-9), chat(logit_bias={"5": 100, "6": -100}),
                     chat(max_tokens=16.0), chat(seed=-(2**63)), chat(seed=2**63 - 1), chat(stop=["a"] * 16),
                     chat(max_tokens=2**31 - 1, stop=["a", "e", "i", "o", "u"]), chat(top_k=-1), chat(n=4)):
            with self.subTest(body=body):
                status, answer = SERVER.post(CHAT, body)
                self.assertEqual(status, 200, answer)

    def test_pipelined_requests_are_answered_in_order(self):
        request = b"GET /version HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        body = text(max_tokens=3, temperature=0).encode()
        slow = b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        last = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        with SERVER.connect() as connection:
            connection.sendall(request + slow + request + slow + last)
            answer = b""
            while part := connection.recv(65536):
                answer += part
        kinds = [b'"version"', b'"text_completion"', b'"version"', b'"text_completion"', b'"status"']
        places = []
        for kind in kinds:
            places.append(answer.index(kind, places[-1] + 1 if places else 0))
        self.assertEqual(answer.count(b"HTTP/1.1 200 OK"), 5, answer)

    def test_requests_byte_by_byte(self):
        body = text(temperature=0).encode()
        sent = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        for i in range(0, len(body), 3):
            piece = body[i : i + 3]
            sent += b"%x\r\n%s\r\n" % (len(piece), piece)
        sent += b"0\r\n\r\n"
        with SERVER.connect() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in sent:
                connection.sendall(bytes([byte]))
            answer = b""
            while part := connection.recv(65536):
                answer += part
        self.assertIn(b"200 OK", answer)

    def test_expect_continue(self):
        body = text().encode()
        with SERVER.connect() as connection:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
                               b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
            self.assertIn(b"100 Continue", connection.recv(1000))
            connection.sendall(body)
            self.assertIn(b"200 OK", connection.recv(100000))

    def test_head_and_options(self):
        status, headers, content = SERVER.request("HEAD", "/v1/models")
        self.assertEqual((status, content), (200, b""))
        self.assertGreater(int(headers["content-length"]), 50)
        status, headers, _ = SERVER.request("OPTIONS", CHAT)
        self.assertEqual(status, 204)
        self.assertNotIn("access-control-allow-origin", headers)

    def test_http_1_0_gets_a_stream_without_chunks(self):
        body = text(stream=True).encode()
        with SERVER.connect() as connection:
            connection.sendall(b"POST /v1/completions HTTP/1.0\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            answer = b""
            while part := connection.recv(65536):
                answer += part
        self.assertNotIn(b"chunked", answer.lower())
        self.assertTrue(answer.endswith(b"data: [DONE]\n\n"), answer)

    def test_vanishing_clients_free_what_they_had(self):
        endless = json.dumps({"prompt": "Once", "max_tokens": 400, "ignore_eos": True, "stream": True}).encode()
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(endless)
        for vanish in range(30):
            connection = socket.create_connection(("127.0.0.1", SERVER.port), timeout=20)
            if vanish % 3 == 0:
                connection.sendall(head + endless[: len(endless) // 2])
            else:
                connection.sendall(head + endless)
                connection.recv(10)
            if vanish % 3 == 1:  # without a goodbye
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        SERVER.wait_idle(5 * SLOWNESS)
        self.assertGreaterEqual(SERVER.metrics()["http_disconnects_total"], 10)

    def test_slow_and_idle_connections_cost_nothing(self):
        before = SERVER.descriptors()
        connections = []
        for i in range(1000):
            connection = socket.create_connection(("127.0.0.1", SERVER.port), timeout=20)
            if i % 2:
                connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHo")
            connections.append(connection)
        begin = time.monotonic()
        status, answer = SERVER.post(TEXT, text(max_tokens=8))
        self.assertEqual(status, 200, answer)
        self.assertLess(time.monotonic() - begin, 2.0 * SLOWNESS)
        self.assertGreaterEqual(SERVER.descriptors(), before + 900)
        for connection in connections:
            connection.close()
        end = time.monotonic() + 10 * SLOWNESS
        while SERVER.descriptors() > before + 20 and time.monotonic() < end:
            time.sleep(0.05)
        self.assertLessEqual(SERVER.descriptors(), before + 20)

    def test_headers_have_ten_seconds(self):
        def dribble(connection, stop):
            for byte in b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 1000:
                if stop.is_set():
                    return
                try:
                    connection.sendall(bytes([byte]))
                except OSError:
                    return
                time.sleep(0.2)

        with SERVER.connect(timeout=30 * SLOWNESS) as connection:
            stop = threading.Event()
            thread = threading.Thread(target=dribble, args=(connection, stop))
            begin = time.monotonic()
            thread.start()
            try:
                answer = connection.recv(1000)
            except ConnectionResetError:
                answer = b""
            seconds = time.monotonic() - begin
            stop.set()
            thread.join()
        self.assertIn(b"408", answer)
        self.assertGreater(seconds, 9)
        self.assertLess(seconds, 10 + 4 * SLOWNESS)


def main():
    global PROGRAM, SERVER, SLOWNESS
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", required=True)
    parser.add_argument("--sanitized", action="store_true", help="the program has sanitizers: times are not looked at")
    arguments = parser.parse_args()
    PROGRAM = arguments.program
    SLOWNESS = 20.0 if arguments.sanitized else 3.0
    SERVER = Server(PROGRAM)
    result = unittest.main(argv=[sys.argv[0]], exit=False, verbosity=1).result
    code = SERVER.stop()
    if code != 0:
        print("exit code", code, "".join(SERVER.log[-30:]), file=sys.stderr)
    sys.exit(0 if result.wasSuccessful() and code == 0 else 1)


if __name__ == "__main__":
    main()
