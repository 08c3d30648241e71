#!/usr/bin/env python3
"""A stand-in for the HuggingFace hub and its content network, for tests: local, scripted, and as rude as asked for.

    stand_in_hub.py --scenario FILE.json --dir DIR

Listens on 127.0.0.1 with two servers, "hub" and "cdn", prints {"hub": PORT, "cdn": PORT} as its first line and serves
until its standard input ends. DIR gets log.jsonl, one line per request, and truth/REVISION/FILE, the contents.

The scenario:
    repo       "acme/tiny"
    revisions  {REVISION: {"commit": 40 hex digits, "files": {NAME: FILE}}}
    token      when given, everything on the hub needs `Authorization: Bearer TOKEN`
    gated      true: the listing is open, files answer 401 GatedRepo without the token, 403 with another
    echo       true: refusals repeat the Authorization header in X-Error-Message
    listing    {"steps": [STEP], "extra": [entries added as they are], "without_hashes": true, "set": {field: value}}
    tls        {"cert": FILE, "key": FILE}: the hub speaks https (the cdn stays http)
    FILE       {"text": "..."} or {"size": N, "seed": S}, with "lfs": true for a SHA-256 etag, "cdn": true for a
               redirect to the other server, "hub_steps"/"steps": [STEP] for the redirecting/the serving request,
               "declared_size": a lie for the listing
    STEP       used up one per GET, "repeat": N for more (-1: for ever):
               {"status": 503, "headers": {..}}  {"drop_after": N}  {"stall_after": N, "seconds": S}
               {"content_length": N} (a header that lies)  {"corrupt": true}  {"ignore_range": true}
               {"slow": S} (16 KiB, then S seconds, and so on)  {"wrong_range": true}
               {"end_after": N} (chunked, ends cleanly)  {"surplus": N} (chunked, N bytes more)
               {"redirect": URL} with {hub} and {cdn} for the two addresses
"""

import argparse
import hashlib
import json
import os
import random
import ssl
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class File:
    def __init__(self, spec):
        if "text" in spec:
            self.data = spec["text"].encode()
        else:
            self.data = random.Random(spec.get("seed", 1)).randbytes(spec["size"])
        self.lfs = spec.get("lfs", False)
        self.cdn = spec.get("cdn", False)
        self.declared_size = spec.get("declared_size", len(self.data))
        self.steps = Steps(spec.get("steps", []))
        self.hub_steps = Steps(spec.get("hub_steps", []))
        self.git_sha1 = hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()
        self.sha256 = hashlib.sha256(self.data).hexdigest()
        self.etag = self.sha256 if self.lfs else self.git_sha1

    def entry(self, name, hashes):
        if not hashes:
            return {"rfilename": name}
        entry = {"rfilename": name, "size": self.declared_size, "blobId": self.git_sha1, "lfs": None}
        if self.lfs:
            entry["lfs"] = {"sha256": self.sha256, "size": self.declared_size, "pointerSize": 134}
        return entry


class Steps:
    """What successive requests get; the usual behaviour once it is used up."""

    def __init__(self, steps):
        self.lock = threading.Lock()
        self.left = [[step, step.get("repeat", 1)] for step in steps]

    def next(self):
        with self.lock:
            while self.left:
                step, count = self.left[0]
                if count == 0:
                    self.left.pop(0)
                    continue
                self.left[0][1] = count - 1
                return step
        return {}


class Stage:
    """Everything the two servers share."""

    def __init__(self, scenario, folder):
        self.scenario = scenario
        self.repo = scenario["repo"]
        self.listing = scenario.get("listing", {})
        self.listing_steps = Steps(self.listing.get("steps", []))
        self.revisions = {}
        self.addresses = {}
        self.log_lock = threading.Lock()
        self.log_file = open(os.path.join(folder, "log.jsonl"), "a", buffering=1)
        for revision, spec in scenario["revisions"].items():
            files = {name: File(file) for name, file in spec["files"].items()}
            self.revisions[revision] = (spec["commit"], files)
            for name, file in files.items():
                path = os.path.join(folder, "truth", revision, name)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb") as out:
                    out.write(file.data)

    def find(self, revision):
        for name, (commit, files) in self.revisions.items():
            if revision in (name, commit):
                return commit, files
        return None, None

    def log(self, **fields):
        with self.log_lock:
            self.log_file.write(json.dumps(fields) + "\n")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stage = None
    role = ""

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        headers = self.headers
        self.stage.log(server=self.role, method=self.command, path=self.path, range=headers.get("Range"),
                       authorization=headers.get("Authorization"), accept_encoding=headers.get("Accept-Encoding"))
        try:
            path = urllib.parse.urlsplit(self.path).path
            if path == "/loop":
                return self.redirect("/loop")
            if self.role == "hub":
                self.answer_hub(path)
            else:
                self.answer_cdn(path)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self.close_connection = True

    def answer_hub(self, path):
        stage = self.stage
        resolve = "/" + stage.repo + "/resolve/"
        api = "/api/models/" + stage.repo + "/revision/"
        if path.startswith(api):
            if self.refused(stage.scenario.get("token")):
                return None
            return self.answer_listing(urllib.parse.unquote(path[len(api):]))
        if path.startswith(resolve):
            gated = stage.scenario.get("gated") and not stage.scenario.get("token")
            if gated or self.refused(stage.scenario.get("token")):
                return self.refuse(401, "GatedRepo") if gated else None
            revision, _, name = path[len(resolve):].partition("/")
            commit, files = stage.find(urllib.parse.unquote(revision))
            if commit is None:
                return self.refuse(404, "RevisionNotFound")
            file = files.get(urllib.parse.unquote(name))
            if file is None:
                return self.refuse(404, "EntryNotFound")
            return self.answer_file(commit, name, file)
        return self.refuse(404, "RepoNotFound")

    def answer_listing(self, revision):
        commit, files = self.stage.find(revision)
        if commit is None:
            return self.refuse(404, "RevisionNotFound")
        step = self.stage.listing_steps.next()
        if self.scripted(step):
            return None
        listing = self.stage.listing
        hashes = not listing.get("without_hashes", False)
        body = {"id": self.stage.repo, "sha": commit, "gated": False,
                "siblings": [file.entry(name, hashes) for name, file in files.items()] + listing.get("extra", [])}
        body.update(listing.get("set", {}))
        data = step["body"].encode() if "body" in step else json.dumps(body).encode()
        self.send(200, {"Content-Type": "application/json"}, data)
        return None

    def answer_file(self, commit, name, file):
        if file.cdn:
            if self.command != "HEAD" and self.scripted(file.hub_steps.next()):
                return
            target = "%s/blobs/%s?Signature=very-secret" % (self.stage.addresses["cdn"], file.etag)
            # The text of a redirect is not the file.
            self.send(302, {"Location": target, "X-Repo-Commit": commit, "X-Linked-Etag": '"%s"' % file.etag,
                            "X-Linked-Size": str(len(file.data)), "ETag": '"of-the-redirect"'}, b"Found. Redirecting")
            return
        self.send_content(file, {"X-Repo-Commit": commit, "ETag": 'W/"%s"' % file.etag})

    def answer_cdn(self, path):
        for _, files in self.stage.revisions.values():
            for file in files.values():
                if path == "/blobs/" + file.etag:
                    self.send_content(file, {"ETag": '"%s"' % file.etag})
                    return
        self.refuse(404, "")

    def refused(self, token):
        if token is None or self.headers.get("Authorization") == "Bearer " + token:
            return False
        if self.stage.scenario.get("gated"):
            self.refuse(403 if self.headers.get("Authorization") else 401, "GatedRepo")
        else:
            self.refuse(401, "")
        return True

    def refuse(self, status, code):
        headers = {}
        if code:
            headers["X-Error-Code"] = code
        if self.stage.scenario.get("echo"):
            headers["X-Error-Message"] = "seen: " + str(self.headers.get("Authorization"))
        self.send(status, headers, b'{"error": "refused"}')

    def redirect(self, target):
        self.send(302, {"Location": target.format(**self.stage.addresses)}, b"")

    def scripted(self, step):
        """Answers in place of the usual one, where the step says so."""
        if "redirect" in step:
            self.redirect(step["redirect"])
        elif "status" in step:
            headers = dict(step.get("headers", {}))
            if self.stage.scenario.get("echo"):
                headers["X-Error-Message"] = "seen: " + str(self.headers.get("Authorization"))
            self.send(step["status"], headers, b"scripted")
        else:
            return False
        return True

    def send(self, status, headers, body):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_content(self, file, headers):
        step = {} if self.command == "HEAD" else file.steps.next()
        if self.scripted(step):
            return
        data = file.data
        if step.get("corrupt"):
            data = bytes([data[0] ^ 1]) + data[1:]
        begin = 0
        wanted = self.headers.get("Range")
        if wanted and not step.get("ignore_range"):
            begin = int(wanted[len("bytes="):].rstrip("-"))
            if begin >= len(data):
                self.send(416, {"Content-Range": "bytes */%d" % len(data)}, b"")
                return
        self.send_response(206 if begin else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        if begin:
            first = begin + 1 if step.get("wrong_range") else begin
            self.send_header("Content-Range", "bytes %d-%d/%d" % (first, len(data) - 1, len(data)))
        body = data[begin:]
        if "end_after" in step or "surplus" in step:
            self.send_chunked(body[:step["end_after"]] if "end_after" in step else body + b"x" * step["surplus"])
            return
        self.send_header("Content-Length", str(step.get("content_length", len(body))))
        self.end_headers()
        if self.command == "HEAD":
            return
        if "drop_after" in step or "content_length" in step:
            self.wfile.write(body[:step.get("drop_after", len(body))])
            self.wfile.flush()
            self.close_connection = True
            return
        if "stall_after" in step:
            self.wfile.write(body[:step["stall_after"]])
            self.wfile.flush()
            time.sleep(step.get("seconds", 5))
            self.close_connection = True
            return
        piece = 16384 if "slow" in step else 1 << 20
        for at in range(0, len(body), piece):
            self.wfile.write(body[at:at + piece])
            time.sleep(step.get("slow", 0))

    def send_chunked(self, body):
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n")


def start(stage, role, tls):
    handler = type(role, (Handler,), {"stage": stage, "role": role})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls["cert"], tls["key"])
        server.socket = context.wrap_socket(server.socket, server_side=True)
    # Another host name than the client was given must count as another host: the cdn goes by "localhost".
    host = "127.0.0.1" if role == "hub" else "localhost"
    stage.addresses[role] = "%s://%s:%d" % ("https" if tls else "http", host, server.server_port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", required=True)
    parser.add_argument("--dir", required=True)
    arguments = parser.parse_args()
    with open(arguments.scenario) as file:
        scenario = json.load(file)
    stage = Stage(scenario, arguments.dir)
    ports = {"cdn": start(stage, "cdn", None), "hub": start(stage, "hub", scenario.get("tls"))}
    print(json.dumps(ports), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
