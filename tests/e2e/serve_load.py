#!/usr/bin/env python3
"""tools/serve_load.py for a few seconds: on lathe serve, with too few pages for all, and on a server that is wrong.

    serve_load.py --program lathe --tool tools/serve_load.py
"""

import argparse
import http.server
import itertools
import json
import re
import subprocess
import sys
import threading
import unittest

PROGRAM = ""
TOOL = ""
SECONDS = 12
GROWTH = 12  # MiB in the second half: in so short a run much is still used for the first time
SANITIZED_GROWTH = 1000  # AddressSanitizer keeps what was freed


def run_tool(*arguments):
    return subprocess.run([sys.executable, TOOL, *map(str, arguments)], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, check=False)


class Wrong(http.server.BaseHTTPRequestHandler):
    """Never says the same twice, takes whatever it gets for good, and has lost a page."""

    protocol_version = "HTTP/1.1"
    numbers = itertools.count()

    def answer(self, content):
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        choice = {"text": f"tale {next(self.numbers)}", "token_ids": [1], "finish_reason": "length"}
        answer = json.dumps({"choices": [choice], "error": {"message": "none"}})
        if b'"stream": true' in body:
            self.answer(f"data: {json.dumps({'choices': [choice]})}\n\ndata: [DONE]\n\n".encode())
        else:
            self.answer(answer.encode())

    def do_GET(self):
        values = {"num_requests_running": 0, "num_requests_waiting": 0, "num_requests_preparing": 0,
                  "http_connections": 1, "kv_cache_free_pages": 7, "kv_cache_prefix_pages": 2, "kv_cache_pages": 10,
                  "num_preemptions_total": 0, "http_disconnects_total": 0}
        self.answer("".join(f'lathe:{name}{{model_name="x"}} {value}\n' for name, value in values.items()).encode())

    def log_message(self, *_):
        pass


class Silent(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        pass  # clients that left


class ServeLoad(unittest.TestCase):
    def test_a_server_takes_what_comes(self):
        # 448 positions for 12 clients: answers give up their pages and get them back.
        done = run_tool("--lathe", PROGRAM, "--clients", 12, "--seconds", SECONDS, "--prompts", 16, "--growth", GROWTH,
                        "--serve-args", "--cache-tokens 448")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("all well", done.stdout)
        counts = {kind: int(n) for n, kind in re.findall(r"(\d+) (whole|streamed|slow|left|vanished|bad)\b", done.stdout)}
        self.assertEqual(len(counts), 6, done.stdout)
        for kind, count in counts.items():
            self.assertGreater(count, 0, kind)
        self.assertRegex(done.stdout, r"[1-9]\d* preemptions")

    def test_it_notices_what_is_wrong(self):
        server = Silent(("127.0.0.1", 0), Wrong)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            done = run_tool("--url", f"http://127.0.0.1:{server.server_port}", "--clients", 3, "--seconds", 1)
        finally:
            server.shutdown()
            server.server_close()
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertIn("expected as alone", done.stdout)
        self.assertIn("pages: expected 10 free or kept, found 7 free and 2 kept", done.stdout)
        self.assertIn("expected 400, found 200", done.stdout)

    def test_wrong_usage(self):
        self.assertEqual(run_tool().returncode, 2)
        self.assertEqual(run_tool("--lathe", PROGRAM, "--clients", 0).returncode, 2)
        self.assertEqual(run_tool("--url", "http://127.0.0.1:1", "--seconds", 1).returncode, 1)


def main():
    global PROGRAM, TOOL, SECONDS, GROWTH
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--tool", required=True)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--sanitized", action="store_true")
    options = parser.parse_args()
    PROGRAM, TOOL, SECONDS = options.program, options.tool, options.seconds
    if options.sanitized:
        GROWTH = SANITIZED_GROWTH
    unittest.main(argv=[sys.argv[0]], verbosity=2)


if __name__ == "__main__":
    main()
