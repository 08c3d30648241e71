"""The list of hostile cases: what a Case is, and the ways files can be something other than files."""

import os

LIMIT = 1 << 63


class Case:
    """One model folder, one command on it, and what must happen.

    expect: "error" (one `lathe: error:` line, an exit code of `exits`, one of `mentions` in that line), "loads" (exit 0)
    or "either" (both are sensible; never a crash, a hang or a second error line).
    """

    def __init__(
        self, name, build, expect="error", mentions=(), command="generate", prompt="hi", exits=(1,), v3=False, target=""
    ):
        self.name = name
        self.build = build
        self.expect = expect
        self.mentions = [mentions] if isinstance(mentions, str) else list(mentions)
        self.command = command
        self.prompt = prompt
        self.exits = exits
        self.v3 = v3
        self.target = target  # the file in the folder that is the model; empty: the folder is


def arguments(case, folder):
    """The command line of a case, without the program."""
    model = os.path.join(folder, case.target) if case.target else folder
    if case.command == "template":
        return ["template", "-m", model, "--messages", os.path.join(folder, "messages.json")]
    if case.command == "verify":
        return ["verify", model]
    if case.command == "inspect":
        return ["inspect", model]
    if case.command == "tokenize":
        return ["tokenize", "-m", model, "-p", case.prompt]
    return ["generate", "-m", model, "-p", case.prompt, "-n", "2", "--temperature", "0", "-t", "2"]


# Things that are not regular files. Each gets the path it shall have.
def folder_at(path):
    os.makedirs(path)


def pipe_at(path):
    os.mkfifo(path)


def loop_at(path):
    os.symlink(os.path.basename(path), path)


def long_loop_at(path):
    os.symlink(os.path.basename(path) + ".b", path)
    os.symlink(os.path.basename(path), path + ".b")


def dangling_at(path):
    os.symlink("nowhere", path)


def device_at(device):
    return lambda path: os.symlink(device, path)


def sparse_at(size):
    def make(path):
        with open(path, "wb") as file:
            file.truncate(size)

    return make


NOT_FILES = {
    "folder": folder_at,
    "pipe": pipe_at,
    "link-loop": loop_at,
    "link-loop-of-two": long_loop_at,
    "dangling-link": dangling_at,
    "device-zero": device_at("/dev/zero"),
    "device-full": device_at("/dev/full"),
    "proc-mem": device_at("/proc/self/mem"),
}

# Broken texts for every JSON file: name -> bytes, or a function of the good bytes.
BAD_JSON = {
    "empty": b"",
    "blank": b" \n\t ",
    "zeros": b"\0" * 64,
    "cut": lambda good: good[: len(good) // 2],
    "trailing": lambda good: good + b"{}",
    "byte-order-mark": lambda good: b"\xef\xbb\xbf" + good,
    "utf-16": lambda good: b"\xff\xfe" + good.decode().encode("utf-16-le"),
    "bad-utf-8": lambda good: good.replace(b"{", b'{"\xff\xc0\xaf": 1, ', 1),
    "duplicate-key": lambda good: good.replace(b"{", b'{"twice": 1, "twice": 2, ', 1),
    "deep-arrays": b"[" * 1_000_000,
    "deep-objects": b'{"a":' * 500_000,
    "deep-value": lambda good: good.replace(b"{", b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b", ", 1),
    "array": lambda good: b"[" + good + b"]",
    "string": b'"config"',
    "null": b"null",
    "comment": lambda good: b"// settings\n" + good,
    "python": b"{'hidden_size': 32, 'ok': True,}",
    "nan": lambda good: good.replace(b"{", b'{"x": NaN, ', 1),
    "lone-surrogate": lambda good: good.replace(b"{", b'{"x": "\\ud800", ', 1),
    "control-character": lambda good: good.replace(b"{", b'{"x": "\x01", ', 1),
    "html": b"<!DOCTYPE html><html><body>Access denied</body></html>",
    "lfs-pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1234\n",
}


def bad_json(model, file_name, how):
    """The broken bytes of a JSON file of the model."""
    text = BAD_JSON[how]
    return text(model.parts()[file_name]) if callable(text) else text
