"""Real clients against `dmc serve`; each skips itself where it is not installed."""

import json
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.server.conftest import Server

PROMPT = "def read_file(path):\n"


@pytest.fixture(scope="module")
def client(server):
    openai = pytest.importorskip("openai", reason="pip install openai")
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)


def test_openai_completes_and_streams(client):
    answer = client.completions.create(
        model="builtin-dms", prompt=PROMPT, max_tokens=30, temperature=0, logprobs=2
    )
    assert answer.choices[0].text and answer.usage.completion_tokens > 0
    assert len(answer.choices[0].logprobs.tokens) == answer.usage.completion_tokens
    stream = client.completions.create(
        model="builtin-dms", prompt=PROMPT, max_tokens=30, temperature=0, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in stream) == answer.choices[0].text


def test_openai_tells_errors_apart(client):
    import openai

    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="builtin-dms", prompt=PROMPT, temperature=3)
    assert caught.value.param == "temperature" and caught.value.code == "invalid_value"
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="gpt-9", prompt=PROMPT)
    assert caught.value.code == "model_not_found"
    assert [model.id for model in client.models.list()] == ["builtin-dms"]


def test_openai_retries_while_the_queue_is_full():
    openai = pytest.importorskip("openai", reason="pip install openai")
    server = Server("--queue", "1", "--max-sequences", "1")
    try:
        client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)
        with pytest.raises(openai.InternalServerError) as caught:
            client.completions.create(model="builtin-dms", prompt=["a", "b"], max_tokens=1)
        assert caught.value.status_code == 503 and caught.value.response.headers["Retry-After"]
    finally:
        assert server.end() == 0


def test_keys_are_asked_for(tmp_path):
    openai = pytest.importorskip("openai", reason="pip install openai")
    keys = tmp_path / "keys"
    keys.write_text("# ours\nsecret-1\nsecret-2\n")
    server = Server("--api-key-file", keys)
    try:
        for key in ("secret-1", "secret-2"):
            client = openai.OpenAI(base_url=server.url + "/v1", api_key=key, max_retries=0)
            assert client.models.list().data
        client = openai.OpenAI(base_url=server.url + "/v1", api_key="secret-", max_retries=0)
        with pytest.raises(openai.AuthenticationError):
            client.models.list()
        assert server.ask("/metrics")[0] == 401 and server.ask("/health")[0] == 200
    finally:
        assert server.end() == 0
        assert "secret" not in server.log


def test_prometheus_reads_the_metrics(server):
    parser = pytest.importorskip("prometheus_client.parser", reason="pip install prometheus_client")
    server.complete(prompt=PROMPT, max_tokens=5)
    status, headers, text = server.ask("/metrics")
    assert status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in parser.text_string_to_metric_families(text)}
    assert all(family.documentation for family in families.values())
    assert {"dmc_generation_tokens", "dmc_kv_compression_ratio", "dmc_kv_bytes_used"} <= set(families)
    buckets = [s for s in families["dmc_time_to_first_token_seconds"].samples if "le" in s.labels]
    counts = [sample.value for sample in buckets]
    assert counts == sorted(counts) and counts[-1] > 0


def test_promtool_finds_nothing_in_the_metrics(server):
    if not shutil.which("promtool"):
        pytest.skip("apt-get install prometheus")
    server.complete(prompt=PROMPT, max_tokens=3)
    text = server.ask("/metrics")[2]
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stdout + done.stderr, done.stdout + done.stderr


# As the request functions of `vllm bench serve` (0.33) send them; its wheel needs a GPU's libraries.
VLLM_COMPLETION = {
    "model": "builtin-dms", "prompt": PROMPT, "repetition_penalty": 1.0, "max_tokens": 12, "logprobs": None,
    "stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True, "temperature": 0.0,
}  # fmt: skip
VLLM_CHAT = {
    "model": "chatty", "messages": [{"role": "user", "content": [{"type": "text", "text": PROMPT}]}],
    "max_completion_tokens": 12, "stream": True, "stream_options": {"include_usage": True},
    "ignore_eos": True, "temperature": 0.0, "top_k": None, "min_p": None,
}  # fmt: skip


def vllm_reads(text):
    """What it makes of a stream: (pieces, usage's completion tokens), by its own rules."""
    pieces, tokens = [], None
    for line in text.split("\n\n"):
        if not line or line.startswith(":"):
            continue
        line = line.removeprefix("data: ")
        if line == "[DONE]":
            continue
        data = json.loads(line)
        if choices := data.get("choices"):
            delta = choices[0].get("delta")
            content = choices[0].get("text") if delta is None else delta.get("content")
            if delta is None or content or "role" not in delta:
                pieces.append(content or "")
        elif usage := data.get("usage"):
            tokens = usage["completion_tokens"]
    return pieces, tokens


def test_vllm_bench_reads_its_model_and_its_streams(server):
    models = json.loads(server.ask("/v1/models")[2])
    assert models["data"][0]["root"] and models["data"][0]["id"] == "builtin-dms"
    headers = {"Authorization": "Bearer None", "x-request-id": "bench-0"}
    status, _, text = server.ask("/v1/completions", VLLM_COMPLETION, headers=headers)
    assert status == 200
    pieces, tokens = vllm_reads(text)
    assert tokens == 12 and len(pieces) >= 12
    alone = server.complete(prompt=PROMPT, max_tokens=12, temperature=0, ignore_eos=True)
    assert "".join(pieces) == alone["choices"][0]["text"]


def test_curl(server):
    done = subprocess.run(
        ["curl", "-sS", "-N", server.url + "/v1/completions", "-H", "Content-Type: application/json"]
        + ["-d", json.dumps({"prompt": PROMPT, "max_tokens": 4, "stream": True})],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stdout.rstrip().endswith("data: [DONE]")


def test_schemathesis_finds_no_server_error(server, tmp_path):
    pytest.importorskip("schemathesis", reason="pip install schemathesis")
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", server.url + "/openapi.json"]
        + ["--checks", "not_a_server_error,content_type_conformance,response_schema_conformance"]
        + ["--max-examples", "40", "--request-timeout", "60", "--seed", "1"]
        + ["--no-color"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert server.ask("/health")[0] == 200


@pytest.fixture(scope="module")
def harness(server):
    pytest.importorskip("lm_eval", reason="pip install lm-eval[api]")
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    return LocalCompletionsAPI(
        model="builtin-dms",
        base_url=server.url + "/v1/completions",
        num_concurrent=4,
        max_length=2048,
    )


def requests(kind, arguments):
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, each, i) for i, each in enumerate(arguments)]


def tokens_of(server, text):
    body = {"prompt": text, "add_special_tokens": False}
    return json.loads(server.ask("/tokenize", body)[2])["tokens"]


def test_lm_eval_rates_continuations(server, harness):
    pairs = [
        ("def read_file(path):\n    with open(", "path) as file:"),
        ("import os\nimport", " sys"),
        ("for i in range(", "len(items)):"),
        ("class Parser:\n    def __init__(", "banana"),
    ]
    scored = harness.loglikelihood(requests("loglikelihood", pairs))
    for (context, continuation), (logprob, greedy) in zip(pairs, scored):
        tokens, start = tokens_of(server, context + continuation), len(tokens_of(server, context))
        answer = server.complete(prompt=tokens, max_tokens=1, prompt_logprobs=0)
        rows = answer["choices"][0]["prompt_logprobs"]
        own = [row[str(token)] for row, token in zip(rows[start:], tokens[start:])]
        assert logprob == pytest.approx(sum(entry["logprob"] for entry in own), abs=1e-4)
        assert greedy == all(entry["rank"] == 1 for entry in own)
    assert not scored[3][1]


def test_lm_eval_writes_what_the_api_writes(server, harness):
    asked = [(PROMPT, {"until": ["\n\n"], "max_gen_toks": 20})]
    expected = server.complete(prompt=PROMPT, max_tokens=20, temperature=0, stop=["\n\n"])
    assert harness.generate_until(requests("generate_until", asked)) == [
        expected["choices"][0]["text"]
    ]


def test_lm_eval_scores_a_text_as_dmc_eval_does(server, harness, dmc, tmp_path):
    """The harness's log-likelihood of a text over HTTP, and the program's own, without a server."""
    text = (ROOT / "src/text/corpus.cpp").read_text()[:4000]
    (tmp_path / "text.py").write_text(text)
    length = 700
    model, data = ROOT / "models/builtin-dms", tmp_path / "text.py"
    done = dmc("eval", "-m", model, "--data", data, "--windows", 1, "--length", length, "--json")
    loss = json.loads(done.stdout)["loss"]
    tokens = tokens_of(server, text)[:length]
    (scored,) = harness._loglikelihood_tokens([(("", ""), tokens[:1], tokens[1:])])
    assert -scored[0] / (length - 1) == pytest.approx(loss, abs=1e-4)


def lines_of_code():
    files = sorted((ROOT / "src").rglob("*.cpp"))[:40]
    lines = [line for file in files for line in file.read_text().splitlines() if len(line) > 40]
    return [line.strip() for line in lines if line.isascii() and " " in line.strip()]


@pytest.fixture
def tasks_data(tmp_path):
    """60 questions in the files of piqa and of lambada, made of lines of code."""
    lines = lines_of_code()
    for folder in ("piqa", "lambada"):
        (tmp_path / folder).mkdir()
    docs, labels = [], []
    for i in range(60):
        goal, right, wrong = lines[3 * i], lines[3 * i + 1], lines[-3 * i - 1]
        labels.append(i % 2)
        docs.append({"goal": goal, "sol1": (right, wrong)[i % 2], "sol2": (wrong, right)[i % 2]})
    (tmp_path / "piqa/valid.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    (tmp_path / "piqa/valid-labels.lst").write_text("".join(f"{label}\n" for label in labels))
    texts = [{"text": line} for line in lines[200:260]]
    (tmp_path / "lambada/lambada_test.jsonl").write_text("".join(json.dumps(t) + "\n" for t in texts))
    return tmp_path


def test_lm_eval_scores_tasks_as_dmc_eval_does(server, tasks_data):
    """local-completions over HTTP, and the program without a server, both compressed: 60 items a task."""
    pytest.importorskip("lm_eval", reason="pip install lm-eval[api]")
    from tests.eval import harness_parity

    tasks, asked = ["piqa", "lambada"], (tasks_data, ["piqa", "lambada"], None)
    backend = harness_parity.through_server(server.url, "builtin-dms", 2048)
    theirs = harness_parity.harness_scores(backend, *asked)
    ours = harness_parity.dmc_scores(ROOT / "models/builtin-dms", *asked, options=())
    assert [theirs[task][0] for task in tasks] == [60, 60]
    assert theirs["piqa"][1].keys() >= {"acc", "acc_norm"} and "perplexity" in theirs["lambada"][1]
    assert not harness_parity.compare(theirs, ours, tasks, 1e-4)
