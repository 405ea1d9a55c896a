"""A model on several ranks says what it says on one, command by command."""

import json
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = ROOT / "models"
USAGE = 2


def last_json(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", ["builtin", "builtin-4x", "builtin-dms", "builtin-delayed"])
def test_greedy_text_is_that_of_one_rank(dmc, name):
    def run(*options):
        return last_json(dmc("run", "-m", MODELS / name, "-p", "class Parser:\n", "-n", 60,
                             "--temperature", 0, "--json", *options))

    one, two = run(), run("--tensor-parallel-size", 2)
    for key in ["text", "tokens", "compression_ratio"]:
        assert two[key] == one[key], key


@pytest.mark.parametrize("options", [[], ["--policy", "snapkv", "--budget", "64"], ["--cr", "2"],
                                     ["--weights", "int8", "--kv", "int8"]])
def test_loss_and_slots_are_those_of_one_rank(dmc, options):
    def evaluate(*ranks):
        return last_json(dmc("eval", "-m", MODELS / "builtin-4x", "--windows", 1, "--length", 512,
                             "--data", ROOT / "docs", "--json", *options, *ranks))

    one, two = evaluate(), evaluate("--tp", 2, "--threads", 2)
    assert two["bits_per_byte"] == pytest.approx(one["bits_per_byte"], rel=1e-3)
    assert two["slots"] == pytest.approx(one["slots"], rel=1e-2)


def test_what_ranks_cannot_share_is_said_in_one_sentence(dmc):
    def refused(*arguments):
        done = dmc("run", "-m", MODELS / "builtin-4x", "-p", "x", *arguments)
        assert done.returncode == USAGE, done.stderr
        sentence, *_ = done.stderr.splitlines()
        assert sentence.startswith("dmc: "), done.stderr
        return sentence

    assert "2 KV heads" in refused("--tensor-parallel-size", 3)
    assert "--tensor-parallel-size" in refused("--tensor-parallel-size", 2, "--device", "cuda")
    assert "tova" in refused("--tp", 2, "--policy", "tova", "--budget", 64)
    assert "--tensor-parallel-size" in refused("--tensor-parallel-size", 0)
