"""A server on a built-in model, for tests with real clients."""

import json
import re
import subprocess
import urllib.error
import urllib.request

import pytest

from tests.conftest import BIN, ROOT


class Server:
    """`dmc serve` with its own port; ended with SIGTERM."""

    def __init__(self, *arguments, model="builtin-dms", environment=None):
        command = [BIN / "dmc", "serve", "-m", ROOT / "models" / model, *arguments]
        command += [] if "--port" in arguments else ["--port", "0"]
        self.process = subprocess.Popen(
            list(map(str, command)), stderr=subprocess.PIPE, text=True, env=environment
        )
        self.log = ""
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)|http://0\.0\.0\.0:(\d+)", self.log)):
            line = self.process.stderr.readline()
            assert line, f"did not start: {self.log}"
            self.log += line
        self.port = int(found[1] or found[2])
        self.url = f"http://127.0.0.1:{self.port}"

    def ask(self, path, body=None, method=None, headers=None, raw=None):
        """(status, headers, text) of one request; a body that is not None is sent as JSON."""
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} if data is not None else {}
        sent.update(headers or {})
        request = urllib.request.Request(self.url + path, data, sent, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read().decode()

    def complete(self, **body):
        status, _, text = self.ask("/v1/completions", body)
        assert status == 200, text
        return json.loads(text)

    def metric(self, name):
        text = self.ask("/metrics")[2]
        return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.M)[1])

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()
        _, rest = self.process.communicate(timeout=60)
        self.log += rest
        return self.process.returncode


@pytest.fixture(scope="session")
def server():
    served = Server("--cache-memory", "64MiB")
    yield served
    assert served.end() == 0, served.log
