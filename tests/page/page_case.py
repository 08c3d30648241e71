"""What tests of the chat page share: a browser, and a server and a tab for each test."""

import pathlib
import sys
import unittest

from browser import Browser, Page, find_browser
from stand_in_server import StandIn

IDLE = "document.querySelector('#stop').hidden && document.querySelector('article.assistant') !== null"
LAST = "[...document.querySelectorAll('article.assistant')].at(-1)"
SKIPPED = 77


class PageTest(unittest.TestCase):
    """A server and a tab of its own for each test; at its end nothing must have gone wrong in the console."""

    maxDiff = None
    browser = None  # of all tests; run_tests sets it
    page_file = pathlib.Path()  # what the stand-in server serves

    def setUp(self):
        self.server = self.start_server()
        self.addCleanup(lambda: self.server.stop())
        self.page = self.tab()
        self.failed_requests_expected = False

    def start_server(self):
        return StandIn(self.page_file).start()

    def tab(self, **options):
        page = Page(self.browser, **options)
        self.addCleanup(self.finish, page)
        page.open(self.server.address)
        page.wait("document.querySelector('#state').textContent === 'Connected'")
        return page

    def finish(self, page):
        self.assertEqual(page.errors(network=not self.failed_requests_expected), [])
        own = (self.server.address, "data:", "blob:" + self.server.address)
        self.assertEqual([url for url in page.requests() if not url.startswith(own)], [])
        page.close()

    def ask(self, text, page=None, wait=True):
        page = page or self.page
        page.evaluate("document.querySelector('#input').focus()")
        page.write(text)
        if page.evaluate("matchMedia('(pointer: coarse)').matches"):
            page.click("#send")
        else:
            page.press("Enter")
        if wait:
            self.wait_idle(page)

    def wait_idle(self, page=None):
        (page or self.page).wait(IDLE)

    def answer(self, page=None):
        return (page or self.page).evaluate(f"{LAST}.querySelector('.body').innerText")

    def last_body(self):
        return self.server.bodies[-1][1]

    def stored(self, page=None):
        keys = "Object.keys(localStorage).filter(key => key.startsWith('lathe.chat.'))"
        return (page or self.page).evaluate(f"{keys}.map(key => JSON.parse(localStorage[key]))")


def run_tests(options):
    """Runs the tests of the main module that `options` name, all without; ends the process."""
    program = find_browser()
    if not program:
        print("skipped: Chromium is not installed (tools/install_packages.sh test, or name one in $CHROMIUM)")
        sys.exit(SKIPPED)
    PageTest.browser = Browser(program)
    try:
        outcome = unittest.main(argv=[sys.argv[0], *options], exit=False, verbosity=2 if "-v" in options else 1)
    finally:
        PageTest.browser.close()
    sys.exit(not outcome.result.wasSuccessful())
