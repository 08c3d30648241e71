#!/usr/bin/env python3
"""The chat page in a real browser: clicks, keys, streams, faults.

    page_test.py --page index.html

The server is a stand-in with scripted answers; serve_test.py takes the program.

Without Chromium the test says so and ends with code 77, which ctest shows as skipped.
"""

import argparse
import json
import pathlib
import sys
import tempfile
import time
import unittest

import audit
from browser import ALT, CTRL, SHIFT, Browser, Page, find_browser
from stand_in_server import HOSTILE, LONG, STORY, StandIn

PAGE = pathlib.Path()
IDLE = "document.querySelector('#stop').hidden && document.querySelector('article.assistant') !== null"
LAST = "[...document.querySelectorAll('article.assistant')].at(-1)"
SKIPPED = 77


class PageTest(unittest.TestCase):
    """A server and a tab of its own for each test; at its end nothing must have gone wrong in the console."""

    maxDiff = None

    def setUp(self):
        self.server = self.start_server()
        self.addCleanup(lambda: self.server.stop())
        self.page = self.tab()
        self.failed_requests_expected = False

    def start_server(self):
        return StandIn(PAGE).start()

    def tab(self, **options):
        page = Page(browser(), **options)
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
        self.assertEqual(set(body), {"model", "messages", "stream", "stream_options"})
        self.assertRegex(self.page.evaluate(f"{LAST}.querySelector('.stats').textContent"), r"^100 tokens \(prompt 7\) · [\d.]+ tokens/s$")

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
        self.assertEqual(set(self.last_body()), {"model", "messages", "stream", "stream_options"})

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
        self.server = StandIn(PAGE, port).start()
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
            browser().call("Browser.setDownloadBehavior", behavior)
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


class Looks(PageTest):
    def test_markdown(self):
        self.ask("markdown")
        html = self.page.evaluate(f"{LAST}.querySelector('.md').innerHTML")
        for part in (
            "<h1>Turning a bowl</h1>",
            "<strong>sharp gouge</strong> and <em>light</em> cuts; <code>rpm</code> near <del>900</del> 1200.",
            '<a href="https://example.org/a_(b)?q=1" target="_blank" rel="noopener noreferrer nofollow">the guide</a>',
            '>https://example.org/x</a>.</p>',
            "<ol><li>Mount the blank</li><li>True the edge<ul><li>slowly</li><li>from the rim</li></ul></li><li>Hollow</li></ol>",
            "<blockquote><p>Measure twice.<br>Cut once.</p></blockquote>",
            '<th class="right" scope="col">Speed</th>',
            "<td>open <code>a|b</code> grain</td>",
            "<hr><p>snake_case_name and 2 * 3 * 4 stay.</p>",
        ):
            self.assertIn(part, html)
        # What was drawn while the text grew equals what is drawn from the whole text.
        self.page.call("Page.reload")
        self.page.wait(f"typeof {LAST} !== 'undefined' && {LAST}.querySelector('.md').innerHTML.length > 100")
        self.assertEqual(self.page.evaluate(f"{LAST}.querySelector('.md').innerHTML"), html)
        browser().call("Browser.grantPermissions", {"permissions": ["clipboardReadWrite"], "browserContextId": self.page.context})
        self.page.click(".fence button")
        self.page.wait("navigator.clipboard.readText().then(text => text.startsWith('def speed(') && text.endsWith('a phone'))")

    def test_hostile_text_stays_text(self):
        self.page.evaluate("window.attacks = []; window.attack = n => attacks.push(n)")
        for server_delay in (0, 0.002):
            self.server.delay = server_delay
            self.ask("hostile")
            found = self.page.evaluate(
                f"""(() => {{
                    const body = {LAST}.querySelector('.body');
                    for (const node of body.querySelectorAll('*')) {{
                        for (const type of ['click', 'mouseover', 'error', 'load']) if (node.tagName !== 'A') node.dispatchEvent(new Event(type));
                    }}
                    const allowed = new Set(['A', 'BR', 'BUTTON', 'CODE', 'DETAILS', 'DIV', 'H1', 'P', 'PRE', 'SPAN', 'STRONG', 'SUMMARY',
                        'TABLE', 'TBODY', 'TD', 'TH', 'THEAD', 'TR']);
                    return {{
                        elements: [...body.querySelectorAll('*')].filter(n => !allowed.has(n.tagName)).map(n => n.outerHTML),
                        handlers: [...body.querySelectorAll('*')].filter(n => [...n.attributes].some(a => a.name.startsWith('on'))).length,
                        links: [...body.querySelectorAll('a')].map(n => n.protocol),
                        text: body.innerText,
                    }};
                }})()"""
            )
            self.assertEqual((found["elements"], found["handlers"]), ([], 0))
            self.assertEqual(set(found["links"]), {"https:"})
            self.assertIn("<script>attack(1)</script><img src=x", found["text"])
        # The question, the title, and a stored conversation take the same way.
        self.ask(HOSTILE.split("\n", maxsplit=1)[0])
        self.page.press("n", ALT)
        self.ask(HOSTILE.split("\n", maxsplit=1)[0])
        self.page.evaluate("new Promise(done => setTimeout(done, 300))")
        self.assertEqual(self.page.evaluate("window.attacks"), [])
        self.assertEqual(self.page.evaluate("[...document.scripts].length + document.querySelectorAll('main img, main iframe, main style').length"), 2)
        # A check of the check: with this policy a real attack would not run either.
        self.assertIn("TypeError", self.page.evaluate("(() => { try { document.body.innerHTML = 'x'; } catch (error) { return String(error); } })()"))
        self.assertEqual(len(self.page.errors()), 1)
        self.page.errors = lambda network=False: []

    def test_long_nonsense_is_drawn_in_time(self):
        texts = ["*" * 50000, "[" * 50000, "`" * 20001 + " `" * 10000, "> " * 20000, "- " * 5000, "_a " * 20000, "|a" * 20000 + "\n|-" * 5]
        for text in texts:
            chat = {
                "id": "abcdef012345", "title": "n", "leaf": "b",
                "messages": [{"id": "a", "parent": "", "role": "user", "content": "x"},
                             {"id": "b", "parent": "a", "role": "assistant", "content": text, "state": "done"}],
            }  # fmt: skip
            self.page.evaluate(f"localStorage['lathe.chat.abcdef012345'] = {json.dumps(json.dumps(chat))}; sessionStorage['lathe.open'] = 'abcdef012345'")
            self.page.call("Page.reload")
            began = time.monotonic()
            self.page.wait("document.querySelector('article.assistant') !== null", timeout=30)
            self.assertLess(time.monotonic() - began, 10, text[:20])

    def test_the_reader_is_not_moved(self):
        self.ask("long", wait=False)
        self.page.wait("document.querySelector('#scroll').scrollHeight > 1500")
        end = "(() => { const s = document.querySelector('#scroll'); return s.scrollHeight - s.scrollTop - s.clientHeight < 40; })()"
        self.page.wait(end)
        wheel = {"type": "mouseWheel", "x": 700, "y": 300, "deltaX": 0, "deltaY": -500}
        self.page.call("Input.dispatchMouseEvent", wheel)
        self.page.wait("!document.querySelector('#latest').hidden")
        self.page.evaluate("new Promise(done => setTimeout(done, 150))")
        before = self.page.evaluate("[document.querySelector('#scroll').scrollTop, document.querySelector('#scroll').scrollHeight]")
        self.page.wait(f"document.querySelector('#scroll').scrollHeight > {before[1]} + 200")
        self.assertEqual(self.page.evaluate("document.querySelector('#scroll').scrollTop"), before[0])
        self.page.click("#latest")
        self.page.wait(end)
        self.page.press("Escape")
        self.wait_idle()

    def test_selected_text_stays_selected_while_the_answer_grows(self):
        self.ask("long", wait=False)
        self.page.wait(f"{LAST}?.querySelectorAll('.md p').length > 2")
        self.page.evaluate(f"getSelection().selectAllChildren({LAST}.querySelector('.md p')); window.first = {LAST}.querySelector('.md p')")
        self.page.wait(f"{LAST}.querySelectorAll('.md p').length > 6")
        self.assertTrue(self.page.evaluate("getSelection().toString().startsWith('Paragraph 0') && window.first.isConnected"))
        self.page.press("Escape")
        self.wait_idle()

    def show_everything(self, page):
        """Yields the name of each state of the page worth looking at."""
        yield "empty"
        self.ask("markdown", page)
        self.ask("think", page)
        page.evaluate(f"{LAST}.querySelector('summary').click()")
        yield "answers"
        self.ask("refuse", page)
        page.evaluate("document.querySelector('article.user').focus()")
        yield "error"
        for opener, dialog in (("#options", "#settings"), ("#help", "#keys")):
            page.evaluate(f"document.querySelector('{opener}').click()")
            page.wait(f"document.querySelector('{dialog}').open")
            yield dialog
            page.press("Escape")
            page.wait(f"!document.querySelector('{dialog}').open")
        page.evaluate("document.querySelector('#chats .rename').click()")
        yield "rename"
        page.press("Escape")
        page.evaluate("document.querySelector('article.user:last-of-type, article.user .foot button:last-of-type').click()")
        page.evaluate("document.querySelector('article.user .foot').lastElementChild.click()")
        yield "editing"
        page.evaluate("document.querySelector('.edit button').click()")
        self.server.chat_template = False
        page.press("n", ALT)
        self.ask("Once upon a time " + "and again " * 30, page)
        yield "text"
        page.evaluate("document.querySelector('#chats .delete').click()")
        page.wait("document.querySelector('[data-banner=undo]') !== null")
        yield "undo"

    def test_contrast_in_both_themes(self):
        self.failed_requests_expected = True
        grounds = set()
        for theme in ("light", "dark"):
            self.server.chat_template = True
            page = self.tab(theme=theme)
            for state in self.show_everything(page):
                self.assertEqual(page.evaluate(audit.CONTRAST), [], f"{theme}, {state}")
            grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        self.assertEqual(len(grounds), 2)
        # The measure notices what is too faint.
        page.evaluate("const p = document.createElement('p'); p.textContent = 'faint'; p.style.color = '#555'; document.querySelector('main').append(p)")
        self.assertEqual([text.split(": ")[1] for text in page.evaluate(audit.CONTRAST)], ["faint"])

    def test_the_switch_overrides_the_system(self):
        grounds = []
        for _ in range(3):
            grounds.append((self.page.text("#theme"), self.page.evaluate("document.documentElement.dataset.theme")))
            self.page.click("#theme")
        self.assertEqual(grounds, [("Theme: system", "light"), ("Theme: dark", "dark"), ("Theme: light", "light")])
        self.page.set_theme("dark")
        self.page.wait("document.documentElement.dataset.theme === 'dark'")

    def test_a_phone_320_pixels_wide(self):
        self.failed_requests_expected = True
        page = self.tab(size=(320, 568), touch=True)
        for state in self.show_everything(page):
            self.assertEqual(page.evaluate(audit.TOO_WIDE), [], state)
        page.evaluate("document.querySelector('#menu').focus()")
        page.click("#menu")
        page.wait("document.querySelector('#side').getBoundingClientRect().left === 0")
        self.assertEqual(page.evaluate(audit.TOO_WIDE), [])
        self.assertEqual(page.evaluate("document.querySelector('main').inert"), True)
        page.click("#new")
        page.wait("!document.querySelector('main').inert")
        # The keyboard on the screen leaves little height; the message box stays in sight.
        page.resize((320, 300), touch=True)
        page.wait("document.querySelector('#composer').getBoundingClientRect().bottom <= innerHeight")
        # The measure notices what is too wide.
        page.evaluate("document.querySelector('#title').style.minWidth = '400px'")
        self.assertNotEqual(page.evaluate(audit.TOO_WIDE), [])


class Access(PageTest):
    def test_everything_has_a_name(self):
        self.ask("markdown")
        self.assertEqual(self.page.evaluate(audit.NAMES), [])

    def test_an_answer_is_read_by_paragraphs(self):
        self.page.evaluate(
            "window.spoken = []; new MutationObserver(list => list.forEach(m => m.addedNodes.forEach(n => spoken.push(n.textContent))))"
            ".observe(document.querySelector('#live'), {childList: true})"
        )
        self.server.delay = 0.001
        self.ask("long")
        spoken = self.page.evaluate("window.spoken")
        self.assertEqual(spoken, [*(part for part in LONG.split("\n\n")), "End of the answer."])
        live = "document.querySelector('#live')"
        self.assertEqual(self.page.evaluate(f"[{live}.ariaLive, {live}.role, document.querySelector('#scroll').ariaLive]"), ["polite", "log", None])

    def test_by_keyboard_alone(self):
        page = self.page
        page.write("one")
        page.press("Enter")
        self.wait_idle()
        # Tab reaches every control that is shown, and one always sees where one is.
        controls = page.evaluate(
            "[...document.querySelectorAll('button, textarea, input, summary, select, [tabindex=\"0\"], a')]"
            ".filter(n => n.checkVisibility({visibilityProperty: true}) && !n.disabled && !n.closest('dialog')).length"
        )
        seen = []
        for _ in range(controls):
            page.press("Tab")
            focus = page.evaluate(audit.FOCUS)
            if focus["name"] == "BODY":
                continue  # once around
            self.assertTrue(focus["seen"] and focus["shown"], focus)
            seen.append(page.evaluate("(document.activeElement.dataset.mark ??= Math.random())"))
        self.assertGreaterEqual(len(set(seen)), controls - 1)
        page.press("m", ALT)
        page.write("two")
        page.press("Enter")
        self.wait_idle()
        page.press("r", ALT)
        page.wait("[...document.querySelectorAll('.foot [role=img]')].some(n => n.textContent === '2/2')")
        self.wait_idle()
        page.press("n", ALT)
        page.write("three")
        page.press("Enter")
        self.wait_idle()
        page.press("l", ALT)
        page.press("ArrowDown")
        page.press("F2")
        page.wait("document.querySelector('#rename').open")
        page.write("Renamed")
        page.press("Enter")
        page.wait("[...document.querySelectorAll('#chats .open')].some(n => n.textContent === 'Renamed')")
        page.press("l", ALT)
        page.press("ArrowDown")
        page.press("Enter")
        page.wait("document.querySelector('#title').textContent === 'Renamed'")
        page.press("l", ALT)
        page.press("Delete")
        page.wait("document.querySelector('#title').textContent === 'three'")
        page.press("/", CTRL)
        page.wait("document.querySelector('#keys').open")
        page.press("Escape")
        page.wait("!document.querySelector('#keys').open")
        page.press("o", ALT)
        page.wait("document.querySelector('#settings').open")
        page.press("Escape")
        page.wait("!document.querySelector('#settings').open && document.activeElement !== document.body")


BROWSER = None


def browser():
    return BROWSER


def main():
    global PAGE, BROWSER
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=pathlib.Path, default=pathlib.Path(__file__).parents[2] / "src/lathe/server/page/index.html")
    arguments, rest = parser.parse_known_args()
    PAGE = arguments.page
    program = find_browser()
    if not program:
        print("skipped: Chromium is not installed (tools/install_packages.sh test, or name one in $CHROMIUM)")
        sys.exit(SKIPPED)
    BROWSER = Browser(program)
    try:
        outcome = unittest.main(argv=[sys.argv[0], *rest], exit=False, verbosity=2 if "-v" in rest else 1)
    finally:
        BROWSER.close()
    sys.exit(not outcome.result.wasSuccessful())


if __name__ == "__main__":
    main()
