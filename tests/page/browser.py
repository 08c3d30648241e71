"""Chromium without a window, driven over its DevTools protocol through a pair of pipes: nothing beyond Python's library.

A Browser is one process; each Page is a tab with storage of its own, unless it shares the context of another.
"""

import base64
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
KEYS = {
    "Enter": ("Enter", 13, "\r"),
    "Escape": ("Escape", 27, ""),
    "Tab": ("Tab", 9, ""),
    "Delete": ("Delete", 46, ""),
    "F2": ("F2", 113, ""),
    "ArrowUp": ("ArrowUp", 38, ""),
    "ArrowDown": ("ArrowDown", 40, ""),
    "/": ("Slash", 191, ""),
    " ": ("Space", 32, " "),
}
# The browser reads commands from descriptor 3 and writes answers to 4.
START = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execvp(sys.argv[3], sys.argv[3:])"
ALT, CTRL, SHIFT = 1, 2, 8


def find_browser():
    """The path of a browser, or None. $CHROMIUM names one."""
    return shutil.which(os.environ["CHROMIUM"]) if os.environ.get("CHROMIUM") else next(
        filter(None, map(shutil.which, PROGRAMS)), None
    )


class Browser:
    def __init__(self, program):
        self.profile = tempfile.mkdtemp(prefix="lathe-page-")
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        # High numbers, so that moving one to 3 does not lose the other.
        for_them = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (theirs_in, theirs_out)]
        command = [program, "--headless", "--remote-debugging-pipe", f"--user-data-dir={self.profile}", "--disable-gpu"]
        command += ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
        command += ["--disable-dev-shm-usage", "--disable-extensions", "--mute-audio", "--lang=en"]
        # Without a screen it knows no mouse. 2: hovers, 4: points finely.
        settings = "primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4"
        command.append(f"--blink-settings={settings}")
        if os.getuid() == 0:
            command.append("--no-sandbox")  # it does not start as root otherwise
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, *map(str, for_them), *command],
            pass_fds=for_them,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (theirs_in, theirs_out, *for_them):
            os.close(end)
        self.output, self.input = os.fdopen(ours_out, "wb", buffering=0), os.fdopen(ours_in, "rb", buffering=0)
        self.changed = threading.Condition()
        self.answers, self.events, self.last_id, self.ended = {}, {}, 0, False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        rest = b""
        while True:
            data = self.input.read(1 << 16)
            with self.changed:
                if not data:
                    self.ended = True
                    self.changed.notify_all()
                    return
                *messages, rest = (rest + data).split(b"\0")
                for message in map(json.loads, messages):
                    if "id" in message:
                        self.answers[message["id"]] = message
                    else:
                        self.events.setdefault(message.get("sessionId"), []).append(message)
                self.changed.notify_all()

    def call(self, method, parameters=None, session=None, timeout=60):
        with self.changed:
            self.last_id += 1
            message = {"id": self.last_id, "method": method, "params": parameters or {}}
            if session:
                message["sessionId"] = session
            wanted = self.last_id
        self.output.write(json.dumps(message).encode() + b"\0")
        with self.changed:
            if not self.changed.wait_for(lambda: wanted in self.answers or self.ended, timeout):
                raise TimeoutError(f"{method}: expected an answer within {timeout} s")
            if wanted not in self.answers:
                raise ConnectionError(f"{method}: the browser has ended")
            answer = self.answers.pop(wanted)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def close(self):
        try:
            self.call("Browser.close", timeout=5)
            self.process.wait(10)
        except (TimeoutError, ConnectionError, RuntimeError, OSError, subprocess.TimeoutExpired):
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.output.close()
        shutil.rmtree(self.profile, ignore_errors=True)


class Page:
    """A tab of `size` pixels in `theme`. Errors and requests of the page are collected while it lives."""

    def __init__(self, browser, size=(1100, 750), theme="light", touch=False, context=None):
        self.browser, self.own_context = browser, context is None
        self.context = context or browser.call("Target.createBrowserContext")["browserContextId"]
        self.target = browser.call("Target.createTarget", {"url": "about:blank", "browserContextId": self.context})[
            "targetId"
        ]
        attached = browser.call("Target.attachToTarget", {"targetId": self.target, "flatten": True})
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.call(f"{domain}.enable")
        self.resize(size, touch)
        self.set_theme(theme)

    def call(self, method, parameters=None):
        return self.browser.call(method, parameters, self.session)

    def close(self):
        self.browser.call("Target.closeTarget", {"targetId": self.target})
        if self.own_context:
            self.browser.call("Target.disposeBrowserContext", {"browserContextId": self.context})

    def resize(self, size, touch=False):
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 2 if touch else 1, "mobile": touch}
        self.call("Emulation.setDeviceMetricsOverride", metrics)
        if touch:
            self.call("Emulation.setTouchEmulationEnabled", {"enabled": True, "maxTouchPoints": 5})

    def set_theme(self, theme):
        features = [
            {"name": "prefers-color-scheme", "value": theme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.call("Emulation.setEmulatedMedia", {"features": features})

    def open(self, url):
        self.call("Page.navigate", {"url": url})
        self.wait(f"location.href.startsWith({json.dumps(url)}) && document.readyState === 'complete'")

    def evaluate(self, expression):
        answer = self.call(
            "Runtime.evaluate", {"expression": expression, "returnByValue": True, "awaitPromise": True, "userGesture": True}
        )
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression}: {answer['exceptionDetails'].get('exception', {}).get('description')}")
        return answer["result"].get("value")

    def wait(self, expression, timeout=20):
        """Waits until the expression holds, and returns its value."""
        end = time.monotonic() + timeout
        while True:
            try:
                value = self.evaluate(expression)
            except (AssertionError, RuntimeError) as error:  # between two documents
                value, problem = None, error
            else:
                problem = value
            if value:
                return value
            if time.monotonic() > end:
                raise AssertionError(f"expected within {timeout} s: {expression}; found {problem!r}")
            time.sleep(0.02)

    def text(self, selector):
        return self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? null")

    def write(self, text):
        """Writes into whatever has the focus."""
        self.call("Input.insertText", {"text": text})

    def press(self, key, modifiers=0):
        code, number, text = KEYS.get(key) or (f"Key{key.upper()}", ord(key.upper()), "")
        event = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": modifiers}
        down = {**event, "type": "keyDown" if text else "rawKeyDown"}
        if text:
            down["text"] = text
        self.call("Input.dispatchKeyEvent", down)
        self.call("Input.dispatchKeyEvent", {**event, "type": "keyUp"})

    def click(self, selector, containing=None):
        """A real click in the middle of the first visible element that matches, which must lie on top there."""
        where = self.wait(
            """(() => {
                const wanted = %s;
                const node = [...document.querySelectorAll(%s)].find(
                    n => n.getClientRects().length && (wanted === null || n.textContent.trim() === wanted));
                if (!node) return null;
                node.scrollIntoView({block: 'nearest', behavior: 'instant'});
                const box = node.getBoundingClientRect();
                const x = box.x + box.width / 2, y = box.y + box.height / 2;
                return node.contains(document.elementFromPoint(x, y)) && !node.disabled ? [x, y] : null;
            })()"""
            % (json.dumps(containing), json.dumps(selector))
        )
        event = {"x": where[0], "y": where[1], "button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", {**event, "type": "mouseMoved", "button": "none"})
        self.call("Input.dispatchMouseEvent", {**event, "type": "mousePressed"})
        self.call("Input.dispatchMouseEvent", {**event, "type": "mouseReleased"})

    def choose_file(self, selector, path):
        document = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", {"nodeId": document, "selector": selector})["nodeId"]
        self.call("DOM.setFileInputFiles", {"files": [str(path)], "nodeId": node})

    def screenshot(self, path):
        data = self.call("Page.captureScreenshot", {"format": "png"})["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))

    def _events(self, method):
        with self.browser.changed:
            return [e["params"] for e in self.browser.events.get(self.session, []) if e["method"] == method]

    def requests(self):
        """The address of everything the page asked for."""
        return [e["request"]["url"] for e in self._events("Network.requestWillBeSent")]

    def errors(self, network=False):
        """Errors and warnings in the console, uncaught exceptions, violated policies; with `network` also failed requests."""
        found = [e["exceptionDetails"]["exception"].get("description", "") for e in self._events("Runtime.exceptionThrown")]
        for event in self._events("Runtime.consoleAPICalled"):
            if event["type"] in ("error", "warning", "assert"):
                found.append(" ".join(str(a.get("value", a.get("description"))) for a in event["args"]))
        for event in self._events("Log.entryAdded"):
            entry = event["entry"]
            if entry["level"] in ("error", "warning") and (network or entry["source"] != "network"):
                found.append(f"{entry['source']}: {entry['text']}")
        return found
