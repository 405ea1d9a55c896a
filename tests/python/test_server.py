"""dmc.Server and dmc.serve: what is served is what the model says here."""

import json
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest

pytest.importorskip("dmc._core", reason="the wheel is not installed: ./run test wheel")
import dmc  # noqa: E402

PROMPT = "def read_file(path):"


@pytest.fixture(scope="module")
def llm():
    model = dmc.LLM("builtin-4x")
    yield model
    model.close()


def ask(url, path="/v1/completions", headers=None, **body):
    request = urllib.request.Request(
        url + path,
        json.dumps(body).encode() if body else None,
        {"Content-Type": "application/json", **(headers or {})},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        text = response.read().decode()
        return json.loads(text) if "json" in response.headers["Content-Type"] else text


def status_of(*arguments, **keywords):
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(*arguments, **keywords)
    return caught.value.code


def test_says_what_the_model_says_while_others_ask_it(llm):
    expected = llm.generate(PROMPT, max_tokens=24, temperature=0)[0]
    with dmc.Server(llm, 0) as server:
        assert [m["id"] for m in ask(server.url, "/v1/models")["data"]] == ["builtin-4x"]
        assert "<html" in ask(server.url, "/")
        replies = []
        clients = [
            threading.Thread(
                target=lambda: replies.append(
                    ask(server.url, prompt=PROMPT, max_tokens=24, temperature=0)
                )
            )
            for _ in range(4)
        ]
        for client in clients:
            client.start()
        mine = llm.generate(PROMPT, max_tokens=24, temperature=0)[0]
        for client in clients:
            client.join()
    assert mine.text == expected.text
    assert [reply["choices"][0]["text"] for reply in replies] == [expected.text] * 4
    assert replies[0]["usage"]["prompt_tokens"] == len(expected.prompt_token_ids)
    # It has let go of its port, and the model goes on.
    with pytest.raises(urllib.error.URLError):
        ask(server.url, "/health")
    with dmc.Server(llm, server.port, name="another", page=False) as again:
        assert ask(again.url, "/v1/models")["data"][0]["id"] == again.name == "another"
        assert status_of(again.url, "/") == 404


def test_keys_and_hosts(llm):
    with dmc.Server(llm, 0, api_keys=["secret"]) as server:
        assert status_of(server.url, "/v1/models") == 401
        shown = {"Authorization": "Bearer secret"}
        assert ask(server.url, "/v1/models", shown)["data"]
        stranger = {**shown, "Host": "stranger.example"}
        assert status_of(server.url, "/v1/models", stranger) in (403, 421)


@pytest.mark.parametrize(
    "options,kind,field",
    [
        ({"host": "0.0.0.0"}, dmc.InvalidArgumentError, "host"),
        ({"host": "nowhere"}, dmc.InvalidArgumentError, "host"),
        ({"port": 70000}, dmc.InvalidArgumentError, "port"),
        ({"api_keys": [""]}, dmc.InvalidArgumentError, "api_keys"),
    ],
)
def test_what_cannot_be_is_refused(llm, options, kind, field):
    with pytest.raises(kind) as caught:
        dmc.Server(llm, **{"port": 0, **options})
    assert caught.value.field == field


def test_a_port_that_is_taken(llm):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(dmc.UnavailableError) as caught:
            dmc.Server(llm, other.getsockname()[1])
        assert caught.value.field == "port"


def test_closing_waits_for_what_runs(llm):
    server = dmc.Server(llm, 0)
    body = {"prompt": PROMPT, "max_tokens": 200, "stream": True, "ignore_eos": True}
    request = urllib.request.Request(
        server.url + "/v1/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        assert response.readline().startswith(b"data: ")
        closing = threading.Thread(target=server.close)
        closing.start()
        lines = [line for line in response if line.startswith(b"data: ")]
        closing.join(60)
    assert lines[-1].strip() == b"data: [DONE]" and len(lines) > 2
    assert not closing.is_alive()
    server.close()  # once more does no harm


PROGRAM = """
import sys, dmc
llm = dmc.LLM("builtin-4x")
if sys.argv[1] == "serve":
    dmc.serve(llm, 0)
    print("went on")
else:
    server = dmc.Server(llm, 0)
    print(server.url, flush=True)
    sys.stdin.readline()
"""


def start(how, folder, *streams):
    words = [sys.executable, "-c", PROGRAM, how]
    pipes = dict.fromkeys(streams, subprocess.PIPE)
    return subprocess.Popen(words, text=True, cwd=folder, **pipes)


def test_ctrl_c_ends_serve(tmp_path):
    process = start("serve", tmp_path, "stdout", "stderr")
    line = process.stderr.readline()
    url = line.split(" at ")[1].split(";")[0]
    assert ask(url, prompt="x", max_tokens=2)["choices"]
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "went on\n")


def test_a_process_may_end_with_a_server_open(tmp_path):
    process = start("leave", tmp_path, "stdin", "stdout")
    url = process.stdout.readline().strip()
    assert ask(url, "/health") is not None
    process.communicate("\n", timeout=60)
    assert process.returncode == 0
