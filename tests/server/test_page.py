"""The web page in headless Chromium, driven by its debugging protocol over a pipe."""

import base64
import json
import os
import shutil
import subprocess
import time

import pytest

from tests.server.conftest import Server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


class Browser:
    """One page. DMC_SCREENSHOTS names a folder that its pictures go to."""

    def __init__(self, profile, width, scheme):
        command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        command += ["--disable-dev-shm-usage", f"--user-data-dir={profile}", "--remote-debugging-pipe"]
        (child_in, self.to), (self.back, child_out) = os.pipe(), os.pipe()
        # Chromium reads file 3 and writes file 4.
        shell = ["bash", "-c", f'exec "$@" 3<&{child_in} 4>&{child_out}', "bash", *command, "about:blank"]
        self.process = subprocess.Popen(
            shell, pass_fds=(child_in, child_out), stderr=subprocess.DEVNULL
        )
        os.close(child_in)
        os.close(child_out)
        self.rest, self.number, self.events, self.session = b"", 0, [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=900, deviceScaleFactor=1, mobile=width < 600,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def read(self):
        while b"\0" not in self.rest:
            part = os.read(self.back, 1 << 16)
            assert part, "chromium ended"
            self.rest += part
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while (answer := self.read()).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def value(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, expression, seconds=60):
        end = time.time() + seconds
        while not self.value(expression):
            assert time.time() < end, f"{expression} does not come to pass"
            time.sleep(0.05)

    def key(self, name, code):
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if name == "Enter" and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name,
                      windowsVirtualKeyCode=code, **text)

    def picture(self, name):
        if folder := os.environ.get("DMC_SCREENSHOTS"):
            data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
            with open(os.path.join(folder, name + ".png"), "wb") as file:
                file.write(base64.b64decode(data))

    def problems(self):
        bad = ("Runtime.exceptionThrown", "Log.entryAdded", "Network.loadingFailed")
        found = [event for event in self.events if event.get("method") in bad]
        return [e for e in found if e["params"].get("entry", {}).get("level") != "verbose"]

    def addresses(self):
        requests = (e for e in self.events if e.get("method") == "Network.requestWillBeSent")
        return {event["params"]["request"]["url"] for event in requests}

    def end(self):
        self.process.terminate()
        self.process.wait(30)
        os.close(self.to)
        os.close(self.back)


@pytest.fixture(scope="module")
def served():
    server = Server("--cache-memory", "64MiB")
    yield server
    assert server.end() == 0, server.log


@pytest.mark.parametrize("width", [420, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_text_is_written_by_keyboard(served, tmp_path, width, scheme):
    browser = Browser(tmp_path, width, scheme)
    try:
        browser.call("Page.navigate", url=served.url + "/")
        browser.wait("document.readyState === 'complete' && model !== null")
        assert browser.value("document.activeElement.id") == "input"
        browser.call("Input.insertText", text="class Parser:\n    def parse(self, text):\n" * 8)
        browser.key("Enter", 13)
        browser.wait("running !== null || $('seen').textContent !== '–'")
        browser.wait("running === null")
        layers, heads = 5, 2
        assert browser.value("$('map').childElementCount") == layers * (heads + 1)
        assert int(browser.value("$('seen').textContent")) > 100
        assert float(browser.value("$('ratio').textContent").rstrip("x")) > 1.2
        assert browser.value("document.querySelector('.turn').textContent").startswith("class Parser")
        wide = browser.value("document.documentElement.scrollWidth")
        assert wide <= width, "nothing is cut off to the right"
        dark = browser.value("matchMedia('(prefers-color-scheme: dark)').matches")
        assert dark == (scheme == "dark")
        browser.picture(f"page-{width}-{scheme}")
        assert not browser.problems(), browser.problems()
        assert all(url.startswith((served.url, "data:", "about:")) for url in browser.addresses())
    finally:
        browser.end()


def test_escape_stops_a_text(served, tmp_path):
    browser = Browser(tmp_path, 1200, "light")
    try:
        browser.call("Page.navigate", url=served.url + "/")
        browser.wait("document.readyState === 'complete' && model !== null")
        browser.value("$('max_tokens').value = 1900; $('temperature').value = 0; $('input').focus()")
        browser.call("Input.insertText", text="class Parser:\n    def parse(self, text):\n" * 8)
        browser.key("Enter", 13)
        browser.wait("$('seen').textContent !== '–'")
        browser.key("Escape", 27)
        browser.wait("running === null")
        assert int(browser.value("$('seen').textContent")) < 1900, "the text goes no further"
        assert browser.value("document.querySelectorAll('.error').length") == 0
        assert browser.value("$('send').textContent") == "Send"
    finally:
        browser.end()
