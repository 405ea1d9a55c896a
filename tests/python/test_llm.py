"""dmc.LLM: what it writes and rates is what the program does, and what it says of its cache holds.
Runs where the wheel is installed (./run test wheel)."""

import json
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip("dmc._core", reason="the wheel is not installed: ./run test wheel")
import dmc  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = ROOT / "models"
PROMPT = "def read_config(path, default=None):\n"
GREEDY = dmc.SamplingParams(max_tokens=40, temperature=0)
TEXT = (ROOT / "run").read_text()


def program(*words):
    """The JSON that the command of the same package prints."""
    command = [pathlib.Path(sys.executable).parent / "dmc", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def llm():
    return dmc.LLM(MODELS / "builtin-4x")


@pytest.fixture(scope="module")
def dense():
    return dmc.LLM(MODELS / "builtin")


@pytest.mark.parametrize("model", ["builtin-4x", "builtin-dms"])
def test_greedy_text_and_its_cache_are_those_of_the_program(model):
    wanted = program("run", "-m", MODELS / model, "-p", PROMPT, "-n", 40, "--temperature", 0)
    output = dmc.LLM(MODELS / model).generate(PROMPT, GREEDY)[0]
    assert output.text == wanted["text"]
    assert output.outputs[0].token_ids == wanted["token_ids"]
    assert output.kv.seen == wanted["tokens"]
    assert output.kv.slots.sum() == wanted["slots"]
    assert output.kv.ratio == pytest.approx(wanted["compression_ratio"])


def test_a_score_is_that_of_the_program(llm, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    words = ["--data", tmp_path / "text.txt", "--windows", 3, "--length", 256]
    wanted = program("eval", "-m", MODELS / "builtin-4x", *words)
    score = llm.score(llm.encode(TEXT, add_special_tokens=False)[: 3 * 256], window=256)
    assert score.kv.seen == wanted["tokens"] == 768 and score.tokens == 765
    assert score.loss == pytest.approx(wanted["loss"], abs=1e-9)
    assert score.perplexity == pytest.approx(wanted["perplexity"])
    assert score.accuracy == pytest.approx(wanted["next_token_accuracy"])
    assert score.kv.ratio == pytest.approx(wanted["compression_ratio"])


def test_prompts_that_are_computed_together_are_written_as_alone(llm):
    prompts = [PROMPT, "import ", "class Parser:\n    def __init__"]
    together = [o.outputs[0].token_ids for o in llm.generate(prompts, GREEDY)]
    assert together == [llm.generate(p, GREEDY)[0].outputs[0].token_ids for p in prompts]
    by_ids = llm.generate([llm.encode(p) for p in prompts], temperature=0, max_tokens=40)
    assert [o.outputs[0].token_ids for o in by_ids] == together


def test_the_record_of_the_cache_adds_up(llm, dense):
    record = llm.inspect(TEXT[:3000])
    shape = (llm.shape["layers"], llm.shape["kv_heads"])
    assert record.seen == len(llm.encode(TEXT[:3000]))
    assert record.slots.shape == record.by_head.shape == shape
    assert record.by_layer.shape == shape[:1]
    assert record.ratio > 1.5 and record.kept == pytest.approx(record.seen / record.ratio)
    plain = dense.inspect(TEXT[:3000])
    assert plain.ratio == 1.0 and (plain.slots == plain.seen).all()
    assert record.bytes < plain.bytes / 1.5


def test_any_model_runs_with_a_budget(dense):
    evicting = dmc.LLM("builtin", policy="tova", budget=32)
    assert evicting.policy == "tova"
    record = evicting.inspect(TEXT[:2000])
    assert (record.slots <= 33).all() and record.ratio > 10
    assert evicting.generate(PROMPT, GREEDY)[0].text


def test_the_same_seed_draws_the_same_text_and_n_texts_differ(llm):
    params = dmc.SamplingParams(max_tokens=20, seed=5, n=3)
    first, second = (llm.generate(PROMPT, params)[0] for _ in range(2))
    texts = [o.text for o in first.outputs]
    assert texts == [o.text for o in second.outputs]
    assert len(set(texts)) == 3
    assert llm.generate(PROMPT, params, seed=6)[0].text != texts[0]


def test_a_stop_string_ends_the_text(llm):
    whole = llm.generate(PROMPT, GREEDY)[0]
    stop = whole.text[10:14]
    cut = llm.generate(PROMPT, GREEDY, stop=stop)[0].outputs[0]
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert (cut.finish_reason, cut.stop_reason) == ("stop", stop)
    assert whole.outputs[0].finish_reason == "length" and whole.outputs[0].stop_reason is None
    token = whole.outputs[0].token_ids[5]
    ended = llm.generate(PROMPT, GREEDY, stop_token_ids=[token])[0].outputs[0]
    assert (ended.finish_reason, ended.stop_reason) == ("stop", token)


def test_log_probabilities_are_of_the_tokens_written(llm):
    output = llm.generate(PROMPT, max_tokens=5, temperature=0, logprobs=3, prompt_logprobs=1)[0]
    text = output.outputs[0]
    assert len(text.logprobs) == len(text.token_ids) == 5
    for token, listed in zip(text.token_ids, text.logprobs):
        assert len(listed) == 3 and listed[token].rank == 1
        assert listed[token].logprob == max(entry.logprob for entry in listed.values())
    own = [listed[token].logprob for token, listed in zip(text.token_ids, text.logprobs)]
    assert text.cumulative_logprob == pytest.approx(sum(own))
    assert output.prompt_logprobs[0] is None
    assert len(output.prompt_logprobs) == len(output.prompt_token_ids)


def test_likelihoods_are_the_sums_of_log_probabilities(llm):
    good, bad = llm.loglikelihood("for i in ", ["range(10):", "banana soup"])
    assert good.logprob > bad.logprob and good.tokens > 0
    ids = llm.encode("for i in range(10):")
    start = len(llm.encode("for i in"))
    rated = llm.generate([ids], max_tokens=0, prompt_logprobs=0)[0].prompt_logprobs[start:]
    own = [listed[token].logprob for token, listed in zip(ids[start:], rated)]
    assert good.logprob == pytest.approx(sum(own), abs=1e-4)
    greedy = llm.generate(PROMPT, GREEDY)[0].outputs[0].token_ids
    again = llm.loglikelihood(llm.encode(PROMPT), [greedy, greedy[::-1]])
    assert again[0].greedy and not again[1].greedy


def test_a_stream_brings_the_same_text_in_pieces(llm):
    pieces = list(llm.stream(PROMPT, GREEDY))
    assert len(pieces) > 5
    assert "".join(pieces) == llm.generate(PROMPT, GREEDY)[0].text


def test_a_chat_is_written_by_the_template(tmp_path):
    model = shutil.copytree(MODELS / "builtin", tmp_path / "chat")
    (model / "chat_template.jinja").write_text(
        "{% for m in messages %}# {{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}# {{ name or 'answer' }}:{% endif %}"
    )
    llm = dmc.LLM(model)
    hello = [{"role": "user", "content": "hello"}]
    output = llm.chat(hello, GREEDY)[0]
    assert llm.decode(output.prompt_token_ids) == "# user: hello\n# answer:"
    assert output.text == "".join(llm.stream(hello, GREEDY))
    named = llm.chat(hello, GREEDY, chat_template_kwargs={"name": "dmc"})[0]
    assert llm.decode(named.prompt_token_ids) == "# user: hello\n# dmc:"
    both = llm.chat([hello, hello], GREEDY)
    assert [o.text for o in both] == [output.text] * 2


REFUSED = {
    "temperature": lambda llm: llm.generate("x", temperature=-1),
    "top_p": lambda llm: llm.generate("x", top_p=2),
    "n": lambda llm: llm.generate("x", n=0),
    "stop": lambda llm: llm.generate("x", stop=""),
    "prompt": lambda llm: llm.generate([[10**6]]),
    "messages": lambda llm: llm.chat([{"role": "user", "content": "x"}]),
    "text": lambda llm: llm.score("x" if len(llm.encode("x", False)) == 1 else ""),
    "window": lambda llm: llm.score("x = 1", window=1),
    "context": lambda llm: llm.loglikelihood("", "x"),
    "continuations": lambda llm: llm.loglikelihood("x", ""),
    "kv": lambda llm: dmc.LLM("builtin", kv="f64"),
    "weights": lambda llm: dmc.LLM("builtin", weights="fp8"),
    "policy": lambda llm: dmc.LLM("builtin", policy="best"),
    "model": lambda llm: dmc.LLM("nobody/nothing"),
}


@pytest.mark.parametrize("field", REFUSED)
def test_what_cannot_be_is_said(llm, field):
    with pytest.raises(dmc.InvalidArgumentError) as raised:
        REFUSED[field](llm)
    assert raised.value.field == field and isinstance(raised.value, ValueError)


def test_errors_of_files_and_names_are_of_their_own_kinds(llm, tmp_path):
    with pytest.raises(dmc.Error, match=str(tmp_path)):
        dmc.LLM(tmp_path)
    broken = shutil.copytree(MODELS / "builtin", tmp_path / "broken")
    (broken / "config.json").write_text("{")
    with pytest.raises(dmc.DataError, match="config.json"):
        dmc.LLM(broken)
    with pytest.raises(TypeError, match="max_token:"):
        llm.generate("x", max_token=3)
    with pytest.raises(dmc.InvalidArgumentError, match="threads are set before"):
        dmc.set_threads(1)


def test_a_text_that_can_never_fit_is_refused_and_others_go_on(llm):
    short = dmc.LLM("builtin-4x", max_model_len=64)
    with pytest.raises(dmc.InvalidArgumentError, match="64"):
        short.generate([PROMPT, [5] * 65], GREEDY)
    assert short.generate(PROMPT, GREEDY)[0].text == llm.generate(PROMPT, GREEDY)[0].text
    tight = dmc.LLM("builtin-4x", kv_cache_memory_bytes=4 << 20)
    outputs = tight.generate([PROMPT] * 40, GREEDY)  # they take turns
    assert {o.text for o in outputs} == {llm.generate(PROMPT, GREEDY)[0].text}


def test_what_is_closed_says_so():
    closed = dmc.LLM("builtin-4x")
    closed.close()
    with pytest.raises(dmc.UnavailableError):
        closed.generate("x")


def test_other_threads_run_while_it_computes(llm):
    beats = []
    stop = threading.Event()

    def beat():
        while not stop.is_set():
            beats.append(time.monotonic())
            time.sleep(0.005)

    thread = threading.Thread(target=beat)
    thread.start()
    llm.generate([PROMPT] * 8, max_tokens=60, ignore_eos=True)
    llm.score(TEXT[:4000])
    stop.set()
    thread.join()
    assert len(beats) > 10


CALLS = {
    "generate": "llm.generate(['def f'] * 64, max_tokens=1900, ignore_eos=True)",
    "score": "llm.score([5] * 1000000, window=2048)",
}


@pytest.mark.parametrize("call", CALLS)
def test_ctrl_c_ends_a_call(call):
    script = f"import dmc\nllm = dmc.LLM('builtin')\nprint('ready', flush=True)\n{CALLS[call]}\n"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", script], **pipes)
    assert process.stdout.readline() == "ready\n"
    time.sleep(1)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in stderr
    assert process.returncode == -signal.SIGINT
    assert time.monotonic() - start < 30


def test_an_interpreter_that_ends_in_the_middle_ends_well():
    script = (
        "import dmc\nllm = dmc.LLM('builtin')\n"
        "s = llm.stream('def f', max_tokens=1900, ignore_eos=True)\nnext(s)\nprint('ended')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


def test_calls_and_cancelled_streams_from_four_threads_leave_nothing():
    soak = ROOT / "tests" / "python" / "soak.py"
    done = subprocess.run([sys.executable, soak, "--calls", "400"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_says_what_it_is():
    words = [pathlib.Path(sys.executable).parent / "dmc", "--version"]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert dmc.__version__ in shown
    folder = pathlib.Path(dmc.__file__).parent
    assert (folder / "py.typed").exists()
    stubs = (folder / "_core.pyi").read_text()
    for name in ["class Engine", "class KvCache", "def attend"]:
        assert name in stubs
    assert "torch" not in sys.modules
    for name in dmc.__all__:
        getattr(dmc, name)


def test_the_program_says_where_its_training_is():
    words = [pathlib.Path(sys.executable).parent / "dmc", "retrofit", "-m", "x", "-o", "y"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2 and "LibTorch" in done.stderr
