"""How the chat page looks and who can use it: Markdown, contrast, small screens, names, keyboard. page_test.py runs this."""

import json
import time

import audit
from browser import ALT, CTRL
from page_case import LAST, PageTest
from stand_in_server import HOSTILE, LONG


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
        self.browser.call("Browser.grantPermissions", {"permissions": ["clipboardReadWrite"], "browserContextId": self.page.context})
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

        def say(text):  # where the focus is
            page.write(text)
            page.press("Enter")
            self.wait_idle()

        say("one")
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
        say("two")
        page.press("r", ALT)
        page.wait("[...document.querySelectorAll('.foot [role=img]')].some(n => n.textContent === '2/2')")
        self.wait_idle()
        page.press("n", ALT)
        say("three")
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
        for key, modifier, dialog in (("/", CTRL, "#keys"), ("o", ALT, "#settings")):
            page.press(key, modifier)
            page.wait(f"document.querySelector('{dialog}').open")
            page.press("Escape")
            page.wait(f"!document.querySelector('{dialog}').open && document.activeElement !== document.body")
