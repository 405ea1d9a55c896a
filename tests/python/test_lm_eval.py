"""dmc as a model of lm-evaluation-harness, where both are installed: its numbers are the engine's own."""

import pathlib
import types

import pytest

pytest.importorskip("dmc._core", reason="the wheel is not installed: ./run test wheel")
pytest.importorskip("lm_eval", reason="lm-eval is not installed")
from lm_eval.api.registry import get_model  # noqa: E402

import dmc  # noqa: E402
import dmc.lm_eval  # noqa: E402, F401

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROMPT = "def read_config(path, default=None):\n"


@pytest.fixture(scope="module")
def lm():
    arguments = f"path={ROOT / 'models' / 'builtin-4x'},max_model_len=128"
    return get_model("dmc").create_from_arg_string(arguments, {"batch_size": 1, "device": "cpu"})


def asked(*args):
    return types.SimpleNamespace(args=args)


def rated(lm, ids, start):
    """Log-probabilities of ids[start:] by the engine that writes texts."""
    listed = lm.llm.generate([ids], max_tokens=0, prompt_logprobs=0)[0].prompt_logprobs
    return sum(listed[i][ids[i]].logprob for i in range(start, len(ids)))


def test_likelihoods(lm):
    pairs = [(PROMPT, "    return"), ("import ", "os\n"), (PROMPT, " banana"), ("", "import os\n")]
    results = lm.loglikelihood([asked(*pair) for pair in pairs], disable_tqdm=True)
    for (context, continuation), (logprob, greedy) in zip(pairs, results):
        start = len(lm.llm.encode(context.rstrip())) or 1
        ids = lm.llm.encode(context + continuation)
        ids = ids if context else [lm.prefix_token_id, *ids]
        assert logprob == pytest.approx(rated(lm, ids, start), abs=1e-4)
    assert results[0][0] > results[2][0]


def test_rolling_likelihoods(lm):
    text = (ROOT / "run").read_text()[:1500]
    ids = lm.llm.encode(text)
    assert len(ids) > 300  # several windows of 128
    wanted = 0.0
    for first in range(0, len(ids), 128):
        before = ids[first - 1] if first else lm.prefix_token_id
        window = ids[first : first + 128]
        if len(window) < 128 and first:  # the last window reaches back, as the harness cuts it
            whole = ids[len(ids) - 129 : len(ids)]
            wanted += lm.llm.loglikelihood(whole[: -len(window)], [window])[0].logprob
        else:
            wanted += lm.llm.loglikelihood([before], [window])[0].logprob
    assert lm.loglikelihood_rolling([asked(text)], disable_tqdm=True)[0] == pytest.approx(wanted, abs=1e-3)


def test_texts(lm):
    options = {"until": ["\n\n"], "max_gen_toks": 20, "do_sample": False}
    requests = [asked(PROMPT, options), asked("x = 1\n" * 100, options)]  # the second one is too long
    first, second = lm.generate_until(requests, disable_tqdm=True)
    assert first == lm.llm.generate(PROMPT, max_tokens=20, temperature=0, stop="\n\n")[0].text
    assert second and "\n\n" not in second


def test_a_model_must_be_named():
    with pytest.raises(dmc.InvalidArgumentError, match="path=DIR"):
        get_model("dmc").create_from_arg_string("max_gen_toks=3")
