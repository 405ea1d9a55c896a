"""Conversations on disk: after kill -9 and a restart the text is the one it would have been."""

import os
import time

import pytest

from tests.conftest import ROOT
from tests.server.conftest import Server

TEXT = (ROOT / "tests" / "server" / "conftest.py").read_text()[:1500]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sessions").mkdir(mode=0o700)
    return tmp_path / "sessions"


def wait_for_a_session(server):
    deadline = time.time() + 30
    while server.metric("dmc_sessions") == 0:
        assert time.time() < deadline, "nothing was saved"
        time.sleep(0.05)


def ask(server, prompt):
    answer = server.complete(prompt=prompt, max_tokens=120, temperature=0, ignore_eos=True)
    cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
    return prompt + answer["choices"][0]["text"], cached, answer["usage"]["prompt_tokens"]


def lost(server):
    server.process.kill()
    server.process.communicate()


def three_turns(*options, between=lambda server: server):
    server, prompt, all_cached = Server(*options), TEXT, []
    for turn in range(3):
        if turn > 0:
            server = between(server)
        prompt, cached, size = ask(server, prompt + f"\n# turn {turn}\n")
        all_cached.append(cached)
    assert server.end() == 0, server.log
    return prompt, all_cached


@pytest.mark.parametrize("options", [[], ["--kv", "int8"], ["--cr", "4"]], ids=["f32", "int8", "held"])
def test_a_killed_conversation_goes_on_to_the_bit(folder, options):
    def killed(server):
        wait_for_a_session(server)
        lost(server)
        return Server(*options, "--session-dir", folder)

    text, cached = three_turns(*options, "--session-dir", folder, between=killed)
    alone, _ = three_turns(*options, "--snapshots", "0")
    assert text == alone
    assert cached[0] == 0 and min(cached[1:]) >= 256, cached


def test_damaged_and_planted_files_change_nothing(folder):
    def tampered(server):
        wait_for_a_session(server)
        lost(server)
        for file in folder.iterdir():
            data = bytearray(file.read_bytes())
            data[len(data) // 2] ^= 0x10
            file.write_bytes(data)
        (folder / "0-0.session").write_bytes(b"dmcsess1" + b"\xff" * 200)
        (folder / "half.session").write_bytes(bytes(data[:100]))
        return Server("--session-dir", folder)

    text, cached = three_turns("--session-dir", folder, between=tampered)
    alone, _ = three_turns("--snapshots", "0")
    assert text == alone
    assert cached == [0, 0, 0]


def test_another_model_leaves_them_alone_and_the_limit_holds(folder):
    text, _ = three_turns("--session-dir", folder)
    server = Server("--session-dir", folder, model="builtin-4x")
    assert server.metric("dmc_sessions") == len(list(folder.iterdir())) >= 1
    _, cached, _ = ask(server, text + "\n")
    assert cached == 0
    assert server.end() == 0
    limit = 2 * max(file.stat().st_size for file in folder.iterdir())
    server = Server("--session-dir", folder, "--session-size", limit)
    assert server.metric("dmc_session_bytes") <= limit
    assert sum(file.stat().st_size for file in folder.iterdir()) <= limit
    assert server.end() == 0


def test_what_cannot_be_kept_is_refused(folder, dmc):
    def refused(*options):
        result = dmc("serve", "-m", ROOT / "models" / "builtin", "--port", "0", *options)
        assert result.returncode == 2
        return result.stderr

    assert "--session-dir" in refused("--session-dir", folder, "--policy", "tova", "--budget", "64")
    assert "--snapshots" in refused("--session-dir", folder, "--snapshots", "0")
    os.chmod(folder, 0o755)
    assert "chmod 700" in refused("--session-dir", folder)
