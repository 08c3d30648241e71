#!/usr/bin/env python3
"""`lathe run` as its users meet it: once with a prompt, in a pipe, and on a terminal.

    run_terminal.py --program lathe --model FOLDER
"""

import argparse
import fcntl
import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unittest

PROGRAM = ""
MODEL = ""
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
STYLES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
LONG = 60  # seconds; a busy machine, sanitizers


def environment(state, **changes):
    env = {name: value for name, value in os.environ.items() if not name.startswith("LATHE_") and name != "NO_COLOR"}
    env.update(XDG_STATE_HOME=str(state), TERM="xterm")
    env.update(changes)
    return env


class Terminal:
    """A program on a pseudo-terminal of its own."""

    def __init__(self, arguments, env, stdout=None):
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))

        def own_terminal():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            [PROGRAM, *arguments], stdin=slave, stdout=stdout or slave, stderr=slave, env=env, preexec_fn=own_terminal
        )
        os.close(slave)
        self.master = master
        self.output = b""
        self.at = 0  # what was already looked at

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)

    def read_some(self, seconds):
        ready, _, _ = select.select([self.master], [], [], seconds)
        if not ready:
            return True
        try:
            data = os.read(self.master, 65536)
        except OSError:  # the other side is closed
            return False
        self.output += data
        return bool(data)

    def expect(self, pattern, seconds=LONG):
        """Waits until the output since the last match contains the pattern; returns what lies before its end."""
        end = time.monotonic() + seconds
        while True:
            found = re.compile(pattern.encode(), re.S).search(self.output, self.at)
            if found:
                text = self.output[self.at : found.end()]
                self.at = found.end()
                return text.decode(errors="replace")
            if time.monotonic() > end or not self.read_some(0.2):
                raise AssertionError("no %r in %r" % (pattern, self.output[self.at :]))

    def type(self, text):
        os.write(self.master, text.encode())

    def prompt(self):
        """Waits for an empty prompt, with the line editor in charge."""
        return self.expect(r"(?:^|[\r\n]|\x1b\[0m|\x1b\[J|\x1b\[K)> (?:\x1b\[K)?$")

    def end(self, seconds=LONG):
        limit = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < limit:
            self.read_some(0.1)
        return self.process.poll()


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lathe-run-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.state = self.folder / "state"
        (self.folder / "chat.jinja").write_text(CHAT_TEMPLATE)

    def run_once(self, *arguments, stdin=None, **changes):
        return subprocess.run(
            [PROGRAM, "run", MODEL, *arguments],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env=environment(self.state, **changes),
            timeout=5 * LONG,
            check=False,
        )

    def terminal(self, *arguments, stdout=None, **changes):
        return Terminal(["run", MODEL, *arguments], environment(self.state, **changes), stdout)

    def chat(self, *arguments, **changes):
        return self.terminal("--chat-template", str(self.folder / "chat.jinja"), *arguments, **changes)


class Once(Case):
    def test_nothing_given_is_a_story(self):
        done = self.run_once("--seed", "3")
        self.assertEqual(done.returncode, 0, done.stderr)
        text = done.stdout.decode()
        self.assertTrue(text.startswith("Once upon a time"), text[:80])
        self.assertTrue(text.endswith("\n"))
        self.assertGreater(len(text), 200)
        self.assertIn("tok/s", done.stderr.decode())
        self.assertNotIn("\x1b", done.stderr.decode())
        self.assertEqual(self.run_once("--seed", "3").stdout, done.stdout)
        self.assertEqual(self.run_once("--seed", "3", stdin=b"").stdout, done.stdout)

    def test_text_is_shown_exactly_with_one_more_line_feed(self):
        generated = subprocess.run(
            [PROGRAM, "generate", "-m", MODEL, "-p", "One day", "-n", "12", "--temperature", "0", "--json"],
            capture_output=True,
            env=environment(self.state),
            check=True,
        )
        text = json.loads(generated.stdout)["text"]
        expected = ("One day" + text + "\n").encode()
        common = ["-n", "12", "--temperature", "0"]
        self.assertEqual(self.run_once("-p", "One day", *common).stdout, expected)
        self.assertEqual(self.run_once(*common, stdin=b"One day\n").stdout, expected)

    def test_quiet_is_quiet(self):
        done = self.run_once("-q", "-n", "5")
        self.assertEqual((done.returncode, done.stderr), (0, b""))

    def test_chat_answers_without_repeating_the_question(self):
        template = str(self.folder / "chat.jinja")
        common = ["-n", "8", "--temperature", "0", "-p", "Hello there", "--chat-template", template]
        done = self.run_once(*common)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn(b"Hello there", done.stdout)
        with_system = self.run_once(*common, "--system", "You are a bear.")
        self.assertEqual(with_system.returncode, 0, with_system.stderr)
        raw = self.run_once(*common, "--raw")
        self.assertTrue(raw.stdout.startswith(b"Hello there"), raw.stdout)

    def test_chat_without_a_question_is_a_usage_error(self):
        done = self.run_once("--chat-template", str(self.folder / "chat.jinja"))
        self.assertEqual(done.returncode, 2)
        self.assertEqual(done.stdout, b"")
        self.assertIn("run: expected -p TEXT, text on stdin or a terminal", done.stderr.decode())

    def test_prompt_longer_than_the_context(self):
        done = self.run_once("-p", "word " * 2000)
        self.assertEqual(done.returncode, 2)
        self.assertRegex(done.stderr.decode(), r"expected fewer than 512 tokens \(--ctx-size\), found \d+")

    def test_interrupt_ends_it_with_130(self):
        process = subprocess.Popen(
            [PROGRAM, "run", MODEL, "-p", "Once", "--ignore-eos", "-t", "1"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(self.state),
            bufsize=0,
        )
        self.assertTrue(process.stdout.read(1))
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        process.stdout.close()
        # On a fast machine the short context may be full before the signal arrives.
        self.assertIn(process.wait(), (130, 0))
        self.assertTrue(rest.endswith(b"\n"))

    def test_full_disk_is_an_error(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("no /dev/full")
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [PROGRAM, "run", MODEL, "-p", "Once"], stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE,
                env=environment(self.state), check=False,
            )
        self.assertEqual(done.returncode, 1)
        self.assertIn("lathe: error: stdout", done.stderr.decode())


class OnATerminal(Case):
    def test_prompt_answer_history_and_exit(self):
        with self.terminal("--temperature", "0", "-n", "6") as terminal:
            self.assertIn("/help", terminal.prompt())
            terminal.type("Once upon a time\r")
            answer = terminal.prompt()
            self.assertIn("\x1b[2m[", answer)
            self.assertRegex(answer, r"6 tokens, [0-9.]+ tok/s\]\x1b\[0m")
            terminal.type("/exit\r")
            self.assertEqual(terminal.end(), 0)
        history = self.state / "lathe" / "history"
        self.assertEqual(history.read_text(), "Once upon a time\n/exit\n")
        self.assertEqual(history.stat().st_mode & 0o777, 0o600)
        # The next session has it, and the arrow keys bring it back.
        with self.terminal("--temperature", "0", "-n", "6") as terminal:
            terminal.prompt()
            terminal.type("\x1b[A\x1b[A\r")
            again = terminal.prompt()
            self.assertIn("Once upon a time", again)
            self.assertRegex(again, r"6 tokens, ")
            terminal.type("\x04")
            self.assertEqual(terminal.end(), 0)

    def test_several_lines_are_one_message(self):
        with self.chat("--temperature", "0", "-n", "3") as terminal:
            terminal.prompt()
            terminal.type("one\\\r")
            terminal.expect(r"\.\.\. $")
            terminal.type("two\r")
            self.assertEqual(terminal.prompt().count("tok/s]"), 1)
            terminal.type('"""\r')
            terminal.expect(r"\.\.\. $")
            terminal.type("three\r")
            terminal.expect(r"\.\.\. $")
            terminal.type("/exit\r")
            terminal.expect(r"\.\.\. $")
            terminal.type('"""\r')
            self.assertEqual(terminal.prompt().count("tok/s]"), 1)
            terminal.type("/exit\r")
            self.assertEqual(terminal.end(), 0)

    def test_interrupt_stops_the_answer_and_not_the_program(self):
        # A long prompt on one thread gives the time to interrupt: what is not done at once is still reading it.
        with self.chat("-t", "1", "--ignore-eos") as terminal:
            terminal.prompt()
            for _ in range(5):
                terminal.type("Tell me everything\r")
                terminal.expect("Tell me everything\r\n")
                time.sleep(0.05)
                terminal.type("\x03")
                seen = terminal.prompt()
                self.assertIsNone(terminal.process.poll())
                if "[stopped]" in seen:
                    break
                terminal.type("/clear\r")  # it was faster than the finger
                terminal.prompt()
            else:
                self.fail("no answer could be stopped")
            terminal.type("/stats\r")
            self.assertIn("context:", terminal.prompt())
            terminal.type("/exit\r")
            self.assertEqual(terminal.end(), 0)

    def test_interrupt_at_the_prompt_clears_the_line(self):
        with self.terminal("--temperature", "0", "-n", "3") as terminal:
            terminal.prompt()
            terminal.type("/nonsense")
            terminal.expect("/nonsense")
            terminal.type("\x03")
            terminal.prompt()
            terminal.type("\\\r")
            terminal.expect(r"\.\.\. $")
            terminal.type("\x03")
            terminal.prompt()
            terminal.type("/stats\r")
            seen = terminal.prompt()
            self.assertIn("last answer: none yet", seen)
            self.assertNotIn("error", seen)
            terminal.type("\x03")
            terminal.prompt()
            terminal.type("\x04")
            self.assertEqual(terminal.end(), 0)

    def test_commands(self):
        with self.chat("--temperature", "0", "-n", "3") as terminal:
            terminal.prompt()
            terminal.type("/help\r")
            self.assertIn("/system TEXT", terminal.prompt())
            terminal.type("/set temperature hot\r")
            self.assertIn('error: /set temperature: expected a number, found "hot"', terminal.prompt())
            terminal.type("/set top_k 7\r")
            terminal.prompt()
            terminal.type("/set\r")
            self.assertIn("top_k 7", terminal.prompt())
            terminal.type("/system Be kind.\r")
            self.assertIn("conversation forgotten", terminal.prompt())
            terminal.type("/nonsense\r")
            self.assertIn("expected /help, /clear", terminal.prompt())
            terminal.type("\r")
            self.assertNotIn("tok/s", terminal.prompt())
            terminal.type("/clear\r")
            self.assertIn("forgotten", terminal.prompt())
            terminal.type("/exit\r")
            self.assertEqual(terminal.end(), 0)

    def test_text_beyond_ascii_is_edited_and_kept(self):
        with self.chat("-n", "2") as terminal:
            terminal.prompt()
            terminal.type("Grüße x\x7f中文\r")
            terminal.prompt()
            terminal.type("\x04")
            self.assertEqual(terminal.end(), 0)
        self.assertEqual((self.state / "lathe" / "history").read_text(), "Grüße 中文\n")

    def test_full_context_is_said(self):
        with self.terminal("-c", "64", "--ignore-eos") as terminal:
            terminal.prompt()
            terminal.type("Once\r")
            self.assertIn("[the context is full: stopped here; /clear starts anew]", terminal.prompt())
            terminal.type("more\r")
            self.assertIn("error: the context is full: expected fewer than 64 tokens", terminal.prompt())
            terminal.type("/clear\r")
            terminal.prompt()
            terminal.type("Once\r")
            self.assertIn("stopped here", terminal.prompt())

    def test_no_styles_where_they_are_not_wanted(self):
        for changes in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
            with self.subTest(changes), self.terminal("-n", "3", **changes) as terminal:
                terminal.expect(r"> ")
                terminal.type("Once\r")
                seen = terminal.expect(r"tok/s\]\r\n")
                self.assertNotIn("\x1b[2m", seen)
                if "TERM" in changes:
                    self.assertNotIn("\x1b", seen)
                terminal.type("/exit\r")
                self.assertEqual(terminal.end(), 0)

    def test_answers_go_to_a_file_that_stdout_is(self):
        with open(self.folder / "out", "wb") as out:
            with self.terminal("-n", "4", "--temperature", "0", stdout=out) as terminal:
                terminal.prompt()
                terminal.type("Once upon a time\r")
                terminal.prompt()
                terminal.type("/exit\r")
                self.assertEqual(terminal.end(), 0)
        text = (self.folder / "out").read_text()
        self.assertTrue(text.endswith("\n"))
        self.assertNotIn("\x1b", text)
        self.assertNotIn("> ", text)
        self.assertNotIn("tok/s", text)

    def test_termination_and_hang_up(self):
        with self.terminal() as terminal:
            terminal.prompt()
            terminal.process.send_signal(signal.SIGTERM)
            self.assertEqual(terminal.end(), 143)

    def test_history_that_cannot_be_written_is_a_warning(self):
        (self.state / "lathe" / "history").mkdir(parents=True)
        with self.terminal("-n", "2") as terminal:
            self.assertIn("warning: history: ", terminal.prompt())
            terminal.type("Once\r")
            self.assertIn("tok/s", terminal.prompt())
            terminal.type("/exit\r")
            self.assertEqual(terminal.end(), 0)

    def test_model_text_cannot_command_the_terminal(self):
        # A one-shot answer with its output on a terminal: the continued text is shown with it.
        with self.terminal("-p", "a\x1b[2J\x07b\rc", "-n", "1") as terminal:
            seen = terminal.expect(r"tok/s\]")
            self.assertIn("a\\x1b[2J\\x07b\\x0dc", seen)
            self.assertNotIn("\x1b[2J", seen)
            self.assertEqual(terminal.end(), 0)


def main():
    global PROGRAM, MODEL
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--model", required=True)
    arguments, rest = parser.parse_known_args()
    PROGRAM, MODEL = os.path.abspath(arguments.program), os.path.abspath(arguments.model)
    unittest.main(argv=[sys.argv[0], *rest])


if __name__ == "__main__":
    main()
