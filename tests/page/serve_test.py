#!/usr/bin/env python3
"""The chat page as the program serves it, in a real browser with a real model.

    serve_test.py --program lathe --model models/storyteller
"""

import argparse
import socket
import subprocess
import time

from browser import ALT
from page_case import LAST, PageTest, run_tests


class Program:
    """`lathe serve` on a free port, until stopped."""

    command = []

    def __init__(self, *options):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process = subprocess.Popen(
            [*self.command, "--port", str(self.port), *options], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(600):
            if self.process.poll() is not None:
                raise AssertionError(f"lathe serve: expected it to run, found exit code {self.process.returncode}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError("lathe serve: expected it to listen within 60 s")

    @property
    def address(self):
        return f"http://127.0.0.1:{self.port}/"

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


class Served(PageTest):
    def start_server(self):
        return Program()

    def test_a_story_is_continued_stopped_and_written_again(self):
        page = self.page
        page.wait("document.querySelector('#empty-title').textContent === 'How does it begin?'")
        self.ask("Once upon a time")
        self.assertGreater(len(self.answer()), 20)
        self.assertRegex(page.evaluate(f"{LAST}.querySelector('.stats').textContent"), r"^\d+ tokens \(prompt \d+\) · [\d.]+ tokens/s")
        for _ in range(4):  # past the context of 512 tokens
            page.wait("document.activeElement.id === 'input'")
            page.press("Enter")
            page.wait("!document.querySelector('#stop').hidden || document.querySelector('article:last-child .stats')")
            self.wait_idle()
            self.assertIsNone(page.text(".error"))
        page.press("r", ALT)
        page.wait("document.querySelector('.foot [role=img]')?.textContent === '2/2'")
        self.wait_idle()
        page.press("n", ALT)
        self.ask("The old king", wait=False)
        page.wait(f"{LAST}?.querySelector('.body').innerText.length > 10")
        page.press("Escape")
        self.wait_idle()

    def test_the_same_seed_gives_the_same_text(self):
        texts = []
        for _ in range(2):
            self.page.press("n", ALT)
            self.page.press("o", ALT)
            self.page.wait("document.querySelector('#settings').open")
            for name, value in (("seed", "7"), ("max_tokens", "24"), ("temperature", "0.8")):
                self.page.evaluate(f"document.querySelector('#set-{name}').focus()")
                self.page.write(value)
            self.page.click("#settings button", "Apply")
            self.ask("Once upon a time")
            texts.append(self.answer())
        self.assertEqual(texts[0], texts[1])
        self.assertGreater(len(texts[0]), 10)

    def test_an_error_of_the_server_is_shown(self):
        self.failed_requests_expected = True
        self.page.evaluate("document.querySelector('#options').click()")
        self.page.evaluate("document.querySelector('#set-temperature').focus()")
        self.page.write("9.5")
        self.page.click("#settings button", "Apply")
        self.ask("Once")
        self.assertIn("temperature", self.page.wait("document.querySelector('.error p')?.textContent"))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", required=True)
    parser.add_argument("--model", required=True)
    arguments, rest = parser.parse_known_args()
    Program.command = [arguments.program, "serve", "-m", arguments.model]
    run_tests(rest)


if __name__ == "__main__":
    main()
