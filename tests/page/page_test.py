#!/usr/bin/env python3
"""The chat page in a real browser: clicks, keys, streams, faults.

    page_test.py --page index.html

The server is a stand-in with scripted answers; serve_test.py takes the program.

Without Chromium the test says so and ends with code 77, which ctest shows as skipped.
"""

import argparse
import json
import pathlib
import tempfile
import time

from browser import ALT, SHIFT
from page_case import LAST, PageTest, run_tests
from page_looks import Access, Looks  # noqa: F401  tests of this module, too
from stand_in_server import STORY, StandIn


class Conversation(PageTest):
    def test_an_answer_is_streamed_and_counted(self):
        self.assertEqual(self.page.evaluate("document.activeElement.id"), "input")
        self.ask("slow", wait=False)
        lengths = [self.page.wait(f"{LAST}?.innerText.length > {n} && {LAST}.innerText.length") for n in (20, 60, 120)]
        self.assertFalse(self.page.evaluate("document.querySelector('#stop').hidden"))
        self.wait_idle()
        self.assertLess(lengths[-1], len(self.answer()))
        self.assertEqual(self.answer(), ("word " * 100).strip())
        path, body = self.server.bodies[0]
        self.assertEqual(path, "/v1/chat/completions")
        self.assertEqual(body["messages"], [{"role": "user", "content": "slow"}])
        self.assertEqual((body["stream"], body["stream_options"]), (True, {"include_usage": True}))
        self.assertEqual(set(body), {"model", "messages", "stream", "stream_options", "return_progress"})
        self.assertRegex(self.page.evaluate(f"{LAST}.querySelector('.stats').textContent"), r"^100 tokens \(prompt 7\) · [\d.]+ tokens/s$")

    def test_a_long_prompt_is_told_to_be_read(self):
        self.ask("read", wait=False)
        for percent in (25, 50):
            self.page.wait(f"{LAST}?.querySelector('.stats')?.textContent === 'Reading: {percent} % of 2048 tokens'")
        self.wait_idle()
        self.assertTrue(self.last_body()["return_progress"])
        self.assertEqual(self.answer(), "You said: read")
        self.assertNotIn("Reading", self.page.evaluate(f"{LAST}.querySelector('.stats').textContent"))

    def test_the_next_question_carries_the_conversation(self):
        self.ask("one")
        self.ask("two")
        roles = [(m["role"], m["content"]) for m in self.last_body()["messages"]]
        self.assertEqual(roles, [("user", "one"), ("assistant", "You said: one"), ("user", "two")])

    def test_shift_enter_is_a_new_line(self):
        self.page.write("first")
        self.page.press("Enter", SHIFT)
        self.page.write("second")
        self.page.press("Enter")
        self.wait_idle()
        self.assertEqual(self.last_body()["messages"][0]["content"], "first\nsecond")

    def test_escape_and_the_button_stop(self):
        for number, stop in enumerate((lambda: self.page.press("Escape"), lambda: self.page.click("#stop")), 1):
            self.ask("slow", wait=False)
            self.page.wait(f"document.querySelectorAll('article.assistant').length === {number} && {LAST}.innerText.length > 30")
            stop()
            self.wait_idle()
            self.assertIn("word word", self.answer())
            self.assertIn("stopped", self.page.evaluate(f"{LAST}.querySelector('.stats').textContent"))
            end = time.monotonic() + 10
            while self.server.cut < number and time.monotonic() < end:
                time.sleep(0.02)
            self.assertEqual(self.server.cut, number, "the stream was not closed")

    def test_another_answer_and_another_question_are_versions(self):
        self.ask("one")
        self.page.click("article.assistant .foot button", "Regenerate")
        self.page.wait("document.querySelector('.foot [role=img]')?.textContent === '2/2'")
        self.wait_idle()
        self.page.click("[aria-label='Previous version']")
        self.page.wait("document.querySelector('.foot [role=img]').textContent === '1/2'")
        # Editing the question asks anew, and the old one can be gone back to.
        self.page.evaluate("document.querySelector('#input').focus()")
        self.page.press("ArrowUp")
        self.page.wait("document.activeElement.closest('.edit') !== null")
        self.page.write(" and more")
        self.page.press("Enter")
        self.page.wait(f"{LAST}?.innerText.includes('one and more')")
        self.wait_idle()
        self.assertEqual(self.last_body()["messages"], [{"role": "user", "content": "one and more"}])
        self.page.evaluate("document.querySelector('article.user [data-go=previous]').click()")
        self.page.wait("document.querySelector('article.user .body').innerText === 'one'")
        # Going on from an edited answer.
        self.page.click("article.assistant .foot button", "Edit")
        self.page.evaluate("document.querySelector('.edit textarea').select()")
        self.page.write("changed")
        self.page.click(".edit button", "Save")
        self.ask("two")
        self.assertEqual([m["content"] for m in self.last_body()["messages"]], ["one", "changed", "two"])

    def test_thoughts_are_folded_and_not_sent_back(self):
        self.ask("think")
        self.assertEqual(self.page.evaluate(f"{LAST}.querySelector('details').open"), False)
        self.assertEqual(self.answer(), "Thoughts\n\nYou said: think")
        self.assertEqual(self.page.evaluate(f"{LAST}.querySelector('details div').textContent"), "First the wood, then the tool.")
        self.ask("next")
        self.assertEqual(self.last_body()["messages"][1]["content"], "You said: think")

    def test_settings_belong_to_the_conversation(self):
        self.page.press("o", ALT)
        self.page.wait("document.querySelector('#settings').open")
        self.page.evaluate("document.querySelector('#set-system').focus()")
        self.page.write("Be brief.")
        for name, value in (("temperature", "0.25"), ("top_k", "7"), ("max_tokens", "50"), ("seed", "42")):
            self.page.evaluate(f"document.querySelector('#set-{name}').focus()")
            self.page.write(value)
        self.page.evaluate("document.querySelector('#set-stop').focus()")
        self.page.write("END")
        self.page.click("#settings button", "Apply")
        self.ask("one")
        body = self.last_body()
        self.assertEqual(body["messages"][0], {"role": "system", "content": "Be brief."})
        expected = {"temperature": 0.25, "top_k": 7, "max_tokens": 50, "seed": 42, "stop": ["END"]}
        self.assertEqual({key: body[key] for key in expected}, expected)
        self.page.press("n", ALT)
        self.ask("one")
        self.assertEqual(set(self.last_body()), {"model", "messages", "stream", "stream_options", "return_progress"})

    def test_a_model_without_a_chat_template_continues_text(self):
        self.failed_requests_expected = True
        self.server.chat_template = False
        self.ask("Once upon a time")
        path, body = self.server.bodies[-1]
        self.assertEqual((path, body["prompt"], body["max_tokens"]), ("/v1/completions", "Once upon a time", 200))
        self.assertTrue(self.page.evaluate("document.querySelector('#messages').classList.contains('text')"))
        self.page.press("Enter")
        self.page.wait("document.querySelectorAll('article').length === 3")
        self.wait_idle()
        self.assertTrue(self.last_body()["prompt"].endswith("thought a fool."))
        self.ask("He said:")
        self.assertTrue(self.last_body()["prompt"].endswith("thought a fool. He said:"))
        self.assertEqual(sum(path == "/v1/chat/completions" for path, _ in self.server.bodies), 1)
        self.page.click("article:last-child .foot button", "Edit text")
        self.page.evaluate("document.querySelector('.edit textarea').select()")
        self.page.write("A new beginning")
        self.page.click(".edit button", "Save")
        self.page.wait("document.querySelector('#messages .body').innerText === 'A new beginning'")
        self.page.evaluate("document.querySelector('#input').focus()")
        self.page.press("Enter")
        self.page.wait("document.querySelectorAll('article').length === 2")
        self.wait_idle()
        self.assertEqual(self.last_body()["prompt"], "A new beginning")

    def test_the_server_says_that_a_model_continues_text(self):
        self.server.about = {"chat_template": False, "max_model_len": 60}
        page = self.tab()
        page.wait("document.querySelector('#empty-title').textContent === 'How does it begin?'")
        self.ask("Once upon a time", page)
        self.assertEqual([path for path, _ in self.server.bodies], ["/v1/completions"])
        # 41 tokens for 180 characters: of 60 tokens the text may have half, less a margin, about 125 characters.
        for _ in range(2):
            page.press("Enter")
            page.wait(f"{LAST}.querySelector('.stats') && document.querySelector('#stop').hidden")
            self.wait_idle(page)
        prompts = [body["prompt"] for _, body in self.server.bodies]
        self.assertEqual(len(prompts[1]), len("Once upon a time") + len(STORY))
        self.assertTrue(90 < len(prompts[2]) <= 125 and prompts[1].endswith(STORY) and prompts[2].endswith(STORY), prompts)
        self.assertIn(" " + prompts[2], "Once upon a time" + 2 * STORY)
        self.assertIn("no longer fits", page.evaluate(f"{LAST}.querySelector('.stats').textContent"))

    def test_a_text_that_has_become_too_long_goes_on_from_its_end(self):
        self.failed_requests_expected = True
        self.server.about, self.server.context = {"chat_template": False}, 1000
        page = self.tab()
        text = "and then " * 400
        self.ask(text + "the end", page)
        prompt = self.last_body()["prompt"]
        self.assertTrue(prompt.endswith("the end") and prompt.startswith(("and", "then")) and 400 < len(prompt) <= 1000, prompt)


class Faults(PageTest):
    def setUp(self):
        super().setUp()
        self.failed_requests_expected = True

    def error(self):
        return self.page.wait("document.querySelector('.error p')?.textContent")

    def test_an_error_is_shown_in_place_and_can_be_tried_again(self):
        self.ask("busy")
        self.assertEqual(self.error(), "too many requests wait (again in 3 s) (queue_full)")
        self.page.click(".error button", "Try again")
        self.page.wait("!document.querySelector('.error')")
        self.wait_idle()
        self.assertEqual(self.answer(), "You said: busy")
        self.ask("refuse")
        self.assertEqual(self.error(), "temperature: expected 0 to 2, found 9 (invalid_value)")
        self.ask("next")
        self.assertEqual([m["content"] for m in self.last_body()["messages"]], ["busy", "You said: busy", "refuse\n\nnext"])

    def test_a_stream_that_breaks_keeps_what_came(self):
        self.ask("break")
        self.assertEqual(self.error(), "The connection ended before the answer did.")
        self.assertIn("You said", self.answer())
        self.ask("fault")
        self.page.wait("[...document.querySelectorAll('.error p')].some(p => p.textContent === 'out of memory (memory)')")

    def test_a_server_that_goes_away_and_comes_back(self):
        port = self.server.server_address[1]
        self.server.stop()
        self.ask("hello")
        self.assertEqual(self.error(), "The server is not reachable.")
        self.page.wait("document.querySelector('[data-banner=down]') !== null")
        self.assertEqual(self.page.text("#state"), "Server not reachable")
        self.server = StandIn(self.page_file, port).start()
        self.page.wait("document.querySelector('#state').textContent === 'Connected'")
        self.page.wait("document.querySelector('[data-banner=down]') === null")
        self.page.click(".error button", "Try again")
        self.page.wait("!document.querySelector('.error')")
        self.wait_idle()
        self.assertEqual(self.answer(), "You said: hello")

    def test_a_key_is_asked_for_and_kept_for_the_session(self):
        self.server.key = "s3cret"
        self.ask("hello", wait=False)
        for key in ("wrong", "s3cret"):
            self.page.wait("document.querySelector('#key').open")
            if key != "wrong":
                self.page.wait("document.querySelector('#key-text').textContent.includes('refused')")
            self.page.write(key)
            self.page.press("Enter")
            self.page.wait("!document.querySelector('#key').open || document.querySelector('#key-text').textContent.includes('refused')")
        self.wait_idle()
        self.assertEqual(self.answer(), "You said: hello")
        self.assertEqual(self.server.keys, ["Bearer s3cret"])
        self.assertEqual(self.page.evaluate("JSON.stringify(localStorage).includes('s3cret')"), False)
        self.page.call("Page.reload")
        self.page.wait("document.querySelector('#model-name')?.textContent === 'stand-in'")
        self.server.key = "other"
        self.ask("again", wait=False)
        self.page.wait("document.querySelector('#key').open")
        self.page.click("#key button", "Cancel")
        self.assertEqual(self.error(), "missing or wrong API key (invalid_api_key)")

    def test_a_server_that_starts_up(self):
        self.server.healthy = False
        self.page.call("Page.reload")
        self.page.wait("document.querySelector('#state')?.textContent === 'Server is starting'")
        self.server.healthy = True
        self.page.wait("document.querySelector('#state').textContent === 'Connected'")

    def test_a_full_storage_is_said_and_the_conversation_goes_on(self):
        self.page.evaluate(
            "(() => { let n = 1 << 22; for (let i = 0; n >= 1;) try { localStorage['x' + i++] = 'x'.repeat(n); } catch { n >>= 1; } })()"
        )
        self.ask("hello")
        self.assertEqual(self.answer(), "You said: hello")
        self.page.wait("document.querySelector('[data-banner=storage]') !== null")
        self.page.evaluate("Object.keys(localStorage).filter(key => key[0] === 'x').forEach(key => localStorage.removeItem(key))")
        self.ask("more")
        self.page.wait("document.querySelector('[data-banner=storage]') === null")
        self.assertEqual(len(self.stored()[0]["messages"]), 4)


class Keeping(PageTest):
    def test_conversations_survive_a_reload(self):
        self.ask("one")
        self.page.write("a draft")
        self.page.call("Page.reload")
        self.page.wait("document.querySelector('article.assistant')?.innerText.includes('You said: one')")
        self.page.wait("document.querySelector('#input').value === 'a draft'")

    def test_renaming_deleting_and_undoing(self):
        self.ask("one")
        self.page.press("n", ALT)
        self.ask("two")
        self.page.click("#chats li[data-open] .rename")
        self.page.write("Second")
        self.page.press("Enter")
        self.page.wait("document.querySelector('#title').textContent === 'Second'")
        self.page.click("#chats li[data-open] .delete")
        self.page.wait("document.querySelector('#title').textContent === 'one'")
        self.assertEqual([chat["title"] for chat in self.stored()], ["one"])
        self.page.click("[data-banner=undo] button")
        self.page.wait("document.querySelector('#title').textContent === 'Second'")
        self.assertEqual(sorted(chat["title"] for chat in self.stored()), ["Second", "one"])

    def test_export_and_import(self):
        self.ask("markdown")
        self.ask("think")
        before = self.stored()
        with tempfile.TemporaryDirectory() as folder:
            behavior = {"behavior": "allow", "downloadPath": folder, "browserContextId": self.page.context}
            self.browser.call("Browser.setDownloadBehavior", behavior)
            self.page.click("#export-all")
            end = time.monotonic() + 20
            while not list(pathlib.Path(folder).glob("*.json")) and time.monotonic() < end:
                time.sleep(0.05)
            (path,) = pathlib.Path(folder).glob("*.json")
            self.assertEqual(json.loads(path.read_text(encoding="utf-8"))["conversations"], before)
            other = self.tab()
            other.choose_file("#file", path)
            other.wait("document.querySelector('#messages').innerText.includes('Turning a bowl')")
            self.assertEqual(self.stored(other), before)
            # Hostile and broken files change nothing.
            for number, text in enumerate(('{"format": "lathe-conversations", "conversations": [{"messages": 3}]}', "[1,", "[]")):
                bad = pathlib.Path(folder) / f"bad{number}.json"
                bad.write_text(text, encoding="utf-8")
                other.choose_file("#file", bad)
                other.wait("document.querySelector('[data-banner=import]').textContent.includes('no conversations')")
                other.click("[data-banner=import] button", "Close")
            self.assertEqual(self.stored(other), before)

    def test_two_tabs_do_not_lose_each_others_messages(self):
        self.ask("one")
        other = self.tab(context=self.page.context)
        other.click("#chats .open")
        other.wait("document.querySelector('article.assistant') !== null")
        self.ask("from the first")
        other.wait("document.querySelectorAll('article.assistant').length === 2")
        self.ask("from the second", page=other)
        self.page.wait("document.querySelectorAll('article.assistant').length === 3")
        self.assertEqual(len(self.stored()[0]["messages"]), 6)
        other.click("#chats li[data-open] .delete")
        self.page.wait("document.querySelectorAll('article').length === 0")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=pathlib.Path, default=pathlib.Path(__file__).parents[2] / "src/lathe/server/page/index.html")
    arguments, rest = parser.parse_known_args()
    PageTest.page_file = arguments.page
    run_tests(rest)


if __name__ == "__main__":
    main()
