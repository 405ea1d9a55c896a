"""`dmc eval --tasks`: what it prints, what it refuses, and that it scores as lm-evaluation-harness."""

import gzip
import json
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(pathlib.Path(__file__).parent))
DENSE = ROOT / "models" / "builtin"
DMC_4X = ROOT / "models" / "builtin-4x"
COMMONSENSE = ["piqa", "boolq", "arc_easy", "arc_challenge", "hellaswag", "winogrande"]

QUESTIONS = [
    ("Where does a file keep its lines?", ["on a disk", "in the sea", "nowhere", "under a tree"], 0),
    ("What does an empty list hold?", ["three numbers", "nothing at all", "a tuple", "itself"], 1),
    ("Which of these is a colour?", ["seven", "loud", "green", "quickly, and with é"], 2),
]


def write_lines(path, docs):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(doc) + "\n" for doc in docs))


@pytest.fixture
def data(tmp_path):
    """A few items of our own for every task, in the published forms."""
    piqa = [{"goal": q, "sol1": c[0], "sol2": c[1]} for q, c, _ in QUESTIONS]
    write_lines(tmp_path / "piqa/valid.jsonl", piqa)
    (tmp_path / "piqa/valid-labels.lst").write_text("0\n1\n1\n")
    write_lines(
        tmp_path / "boolq/dev.jsonl",
        [{"question": q.lower().rstrip("?"), "passage": "Some text. " * 9, "answer": g == 1}
         for q, _, g in QUESTIONS],
    )  # fmt: skip
    for name in ["Easy", "Challenge"]:
        write_lines(
            tmp_path / f"arc-{name.lower()}/ARC-{name}-Test.jsonl",
            [{"question": {"stem": q, "choices": [{"text": t, "label": "ABCD"[i]} for i, t in enumerate(c)]},
              "answerKey": "ABCD"[g]} for q, c, g in QUESTIONS],
        )  # fmt: skip
    write_lines(
        tmp_path / "hellaswag/hellaswag_val.jsonl",
        [{"activity_label": "Coding", "ctx_a": f"[header] {q} [title] So.", "ctx_b": "the Coder",
          "endings": [f"[step] takes  {t}." for t in c], "label": str(g)} for q, c, g in QUESTIONS],
    )  # fmt: skip
    write_lines(
        tmp_path / "winogrande/dev.jsonl",
        [{"sentence": "The list fed the tuple since _ had more to give .", "option1": "the list",
          "option2": "the tuple", "answer": "1"},
         {"sentence": "Ann asked Bea as _ knew it.", "option1": "Ann", "option2": "Bea", "answer": "2"}],
    )  # fmt: skip
    write_lines(
        tmp_path / "lambada/lambada_test.jsonl",
        [{"text": 'def f(self):\n    """Returns self."""\n    return self'}, {"text": "one two\nthree"}],
    )
    for subject in ["anatomy", "us_foreign_policy"]:
        for split in ["dev", "test"]:
            folder = tmp_path / "mmlu" / split
            folder.mkdir(parents=True, exist_ok=True)
            rows = [",".join([f'"{q}"', *(f'"{t}"' for t in c), "ABCD"[g]]) for q, c, g in QUESTIONS]
            (folder / f"{subject}_{split}.csv").write_text("\n".join(rows * 2) + "\n")
    problem = {"task_id": "x/0", "prompt": "def one():\n    return 1\n", "entry_point": "one",
               "test": "def check(f):\n    assert f() == 1\n"}  # fmt: skip
    (tmp_path / "humaneval").mkdir()
    with gzip.open(tmp_path / "humaneval/HumanEval.jsonl.gz", "wt") as file:
        file.write(json.dumps(problem) + "\n")
    return tmp_path


def scores(dmc, *arguments):
    done = dmc("eval", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    return result | {"tasks": {entry["task"]: entry for entry in result["tasks"]}}


def refused(done, *parts):
    assert done.returncode == 2, done.stderr
    for part in parts:
        assert str(part) in done.stderr.splitlines()[-1]


def test_commonsense_tasks_and_their_average(dmc, data):
    result = scores(dmc, "-m", DMC_4X, "--tasks", ",".join(COMMONSENSE), "--data-dir", data)
    assert list(result["tasks"]) == COMMONSENSE
    quoted = [s.get("acc_norm", s["acc"]) for s in result["tasks"].values()]
    assert result["cs_qa"] == pytest.approx(sum(quoted) / 6)
    for score in result["tasks"].values():
        assert 0 <= score["acc"] <= 1 and score["items"] in (2, 3)
        assert score["compression_ratio"] > 1
    table = dmc("eval", "-m", DENSE, "--tasks", "piqa,mmlu", "--data-dir", data, "--limit", 1)
    assert "acc_norm" in table.stdout and "CS-QA" not in table.stdout


def test_mmlu_limits_each_subject(dmc, data):
    result = scores(dmc, "-m", DENSE, "--tasks", "mmlu", "--data-dir", data, "--limit", 2)
    assert result["tasks"]["mmlu"]["items"] == 4


def test_long_context_tasks(dmc, tmp_path):
    (tmp_path / "hay.txt").write_text("A short sentence. " * 2000)
    result = scores(dmc, "-m", DMC_4X, "--tasks", "needle_multikey", "--limit", 1,
                    "--data", tmp_path / "hay.txt")  # fmt: skip
    score = result["tasks"]["needle_multikey"]
    grid = score["grids"][0]
    assert grid["length"] == ["256", "512", "1024", "2048"]
    assert len(grid["values"]) == 4 and len(grid["values"][0]) == 5
    assert score["items"] == 20 and score["loss"] > 0
    texts = ["--windows", 2, "--length", 1024]
    result = scores(dmc, "-m", DMC_4X, "--tasks", "recall,agreement", *texts)
    assert result["tasks"]["agreement"]["kl"] > 0
    assert result["tasks"]["agreement"]["items"] == 2048
    assert result["tasks"]["recall"]["loss"] < result["tasks"]["recall"]["local_loss"]
    same = scores(dmc, "-m", DENSE, "--tasks", "agreement", "--reference", DENSE, *texts)
    assert same["tasks"]["agreement"]["kl"] == pytest.approx(0, abs=1e-9)
    assert same["tasks"]["agreement"]["top1"] == 1


def test_generated_code_is_run_only_when_allowed(dmc, data):
    arguments = ["-m", DENSE, "--tasks", "humaneval", "--data-dir", data]
    refused(dmc("eval", *arguments), "--allow-code")
    done = dmc("eval", *arguments, "--allow-code", "--samples", 2, "--json")
    if "cannot be run" in done.stderr:
        pytest.skip(done.stderr.strip())
    score = json.loads(done.stdout)["tasks"][0]
    assert 0 <= score["pass@1"] <= 1 and score["items"] == 1


def test_held_out_text_beside_tasks(dmc, data):
    texts = ["--windows", 1, "--length", 256]
    both = scores(dmc, "-m", DMC_4X, "--tasks", "text,piqa", "--data-dir", data, *texts)
    alone = json.loads(dmc("eval", "-m", DMC_4X, "--json", *texts).stdout)
    assert list(both["tasks"]) == ["text", "piqa"]
    for key in ["bits_per_byte", "loss", "compression_ratio"]:
        assert both["tasks"]["text"][key] == pytest.approx(alone[key])


def test_what_is_missing_is_said_at_once(dmc, data, tmp_path):
    refused(dmc("eval", "--tasks", "piqa,nope", "--data-dir", data), '"nope"', "piqa", "humaneval")
    empty = tmp_path / "empty"
    refused(dmc("eval", "--tasks", "piqa", "--data-dir", empty), empty / "piqa/valid.jsonl")
    refused(dmc("eval", "--tasks", "needle", "--data-dir", empty), "--data")


def test_scores_equal_the_harness(data, monkeypatch):
    pytest.importorskip("lm_eval", reason="pip install -r tools/requirements-harness.txt")
    monkeypatch.setenv("HF_HOME", str(data / "hf"))
    import harness_parity

    tasks = [*harness_parity.TASKS, "mmlu"]
    assert harness_parity.compare(DENSE, data, tasks, limit=3, tolerance=1e-3) == []
