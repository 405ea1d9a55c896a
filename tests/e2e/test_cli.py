"""The program as a user meets it: what it prints, its exit codes, its one-sentence errors."""

import gzip
import json
import math
import pathlib
import re
import shutil
import signal
import subprocess
import time

import pytest
from conftest import BIN

ROOT = pathlib.Path(__file__).resolve().parents[2]
DENSE = ROOT / "models" / "builtin"
DMC_4X = ROOT / "models" / "builtin-4x"

USAGE, DATA, INTERNAL = 2, 3, 1


@pytest.fixture
def model(tmp_path):
    """A copy of the built-in model that a test may damage."""
    return shutil.copytree(DENSE, tmp_path / "model")


@pytest.fixture
def text(tmp_path):
    """A folder with enough text for a few steps, training and held-out."""
    folder = tmp_path / "text"
    folder.mkdir()
    source = (ROOT / "docs" / "algorithm.md").read_text()
    for i in range(120):
        (folder / f"{i}.txt").write_text(f"{i} {source}")
    return folder


def refused(done, code, *parts):
    assert done.returncode == code, done.stderr
    sentence = [line for line in done.stderr.splitlines() if line.startswith("dmc: ")]
    assert len(sentence) == 1, done.stderr
    for part in parts:
        assert str(part) in sentence[0], sentence[0]


def edit_config(model, **changes):
    path = model / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v != "remove"}))


def test_help_lists_every_command(dmc):
    done = dmc("--help")
    assert done.returncode == 0
    for command in ["run", "eval", "sweep", "bench", "inspect", "plan", "retrofit", "train", "convert", "demo"]:
        assert command in done.stdout
        assert dmc(command, "--help").returncode == 0


def test_a_device_that_is_not_there_is_said_at_once(dmc):
    for command in (["run", "-p", "def"], ["eval"], ["bench"]):
        refused(dmc(*command, "--device", "cuda"), USAGE, "--device")
        refused(dmc(*command, "--device", "tpu"), USAGE, "--device", "tpu", "cpu,cuda")
    refused(dmc("bench", "--device", "cuda", "--kv-budget", 1), USAGE, "--kv-budget", "--batch")


def test_typing_errors_are_met_with_a_guess(dmc):
    refused(dmc("evl"), USAGE, "did you mean eval?")
    refused(dmc("run", "--promt", "x"), USAGE, "did you mean --prompt?")
    refused(dmc("retrofit", "models/mine"), USAGE, "a model is given as -m models/mine")
    refused(dmc("run", "-p", "x", "-n", "many"), USAGE)
    refused(dmc("run"), USAGE, "-p")
    refused(dmc("run", "-m", "no/such/model", "-p", "x"), USAGE, "no/such/model")
    refused(dmc("run", "-m", DENSE, "-p", "x", "--policy", "dmc"), USAGE, "--policy")
    refused(dmc("run", "-m", DENSE, "-p", "x", "--temperature", "-1"), USAGE, "--temperature")


def test_run_prints_text_and_what_it_cost(dmc):
    done = dmc("run", "-m", DMC_4X, "-p", "import os\n", "-n", 20, "--temperature", 0)
    assert done.returncode == 0
    assert done.stdout.startswith("import os\n")
    assert "tokens seen" in done.stderr and "CR" in done.stderr
    again = dmc("run", "-m", DMC_4X, "-p", "import os\n", "-n", 20, "--temperature", 0, "--json")
    facts = json.loads(again.stdout)
    assert "import os\n" + facts["text"] == done.stdout.removesuffix("\n")
    assert facts["compression_ratio"] > 1
    dense = dmc("run", "-m", DMC_4X, "-p", "import os\n", "-n", 20, "--policy", "dense", "--json")
    assert json.loads(dense.stdout)["compression_ratio"] == 1


def test_seed_decides_the_text(dmc):
    def text(seed):
        return dmc("run", "-m", DMC_4X, "-p", "def ", "-n", 30, "--seed", seed).stdout

    assert text(1) == text(1)
    assert text(1) != text(2)


SWEEP = ["sweep", "--windows", 1, "--length", 256, "--cr", 2, "--policies", "dense,window,dmc"]


def cells(folder):
    return [json.loads(line) for line in (folder / "sweep.jsonl").read_text().splitlines()]


def test_sweep_goes_on_where_it_was_and_writes_a_report(dmc, tmp_path):
    out = tmp_path / "sweep"
    done = dmc(*SWEEP, "--tasks", "text", "-o", out)
    assert done.returncode == 0, done.stderr
    first = cells(out)
    assert {(c["model"].split("/")[-1], c["policy"], c["cr"]) for c in first} == {
        ("builtin", "dense", 0.0), ("builtin", "window", 2.0),
        ("builtin-4x", "dense", 0.0), ("builtin-4x", "window", 2.0),
        ("builtin-4x", "dmc", 0.0), ("builtin-4x", "dmc", 2.0)}  # fmt: skip
    for cell in first:
        assert cell["cr"] in (0.0, 2.0) and cell["compression_ratio"] >= 1.0

    with (out / "sweep.jsonl").open("a") as file:  # a crash in the middle of a line
        file.write('{"model": "half')
    done = dmc(*SWEEP, "--tasks", "text,multi_turn,speed", "-o", out)
    assert done.returncode == 0, done.stderr
    assert "18 cells, 6 of them measured before" in done.stderr
    assert cells(out)[:6] == first and len(cells(out)) == 18
    speeds = [c for c in cells(out) if c["task"] == "speed"]
    assert len(speeds) == 6 and all(m["value"] > 0 for c in speeds for m in c["metrics"])
    page = (out / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and "multi_turn" in page and "http" not in page


def test_a_sweep_that_is_interrupted_keeps_what_it_has(tmp_path):
    out = tmp_path / "sweep"
    command = [str(BIN / "dmc"), "sweep", "--windows", "4", "--tasks", "text", "-o", str(out)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not (out / "sweep.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stderr = process.communicate()[1]
    assert process.returncode == 130, stderr
    assert "goes on from here" in stderr
    assert cells(out) and (out / "report.html").exists()


def test_sweep_refuses_before_it_measures(dmc, tmp_path):
    out = tmp_path / "sweep"
    refused(dmc("sweep", "--policies", "h3o", "-o", out), USAGE, "h3o", "h2o")
    refused(dmc("sweep", "--tasks", "humaneval", "-o", out), USAGE, "dmc eval --allow-code")
    refused(dmc("sweep", "--tasks", "piqa", "--data-dir", tmp_path, "-o", out), USAGE, "piqa")
    refused(dmc("sweep", "--kv", "f31", "-o", out), USAGE, "f31", "fp8", "int8")
    out.mkdir(exist_ok=True)
    (out / "sweep.jsonl").write_text("{}\n")
    refused(dmc("sweep", "-o", out), DATA, "sweep.jsonl line 1")


def test_ratios_reach_policies_by_budget_or_threshold(dmc):
    for flags in (["-m", DENSE, "--policy", "h2o"], ["-m", DMC_4X]):
        done = dmc("eval", *flags, "--cr", 3, "--windows", 2, "--length", 1024, "--json")
        assert done.returncode == 0, done.stderr
        assert abs(json.loads(done.stdout)["compression_ratio"] - 3) < 0.5
    refused(dmc("eval", "-m", DENSE, "--policy", "h2o"), USAGE, "--policy", "budget", "cr")
    refused(dmc("eval", "-m", DENSE, "--cr", 2), USAGE, "--cr", "dense", "policy")
    refused(dmc("eval", "-m", DMC_4X, "--policy", "dms"), USAGE, "retrofitted for dmc")


def test_eight_bit_floats_are_for_slots_alone(dmc):
    f32, fp8 = (json.loads(dmc("eval", "-m", DMC_4X, "--windows", 1, "--kv", kv, "--json").stdout)
                for kv in ("f32", "fp8"))
    assert f32["loss"] != fp8["loss"] and abs(f32["loss"] - fp8["loss"]) < 0.02
    refused(dmc("eval", "-m", DENSE, "--weights", "fp8"), USAGE, "--weights", "int8")


def test_eval_scores_the_built_in_held_out_set(dmc):
    done = dmc("eval", "-m", DMC_4X, "--windows", 2, "--json")
    assert done.returncode == 0, done.stderr
    score = json.loads(done.stdout)
    for key in ["bits_per_byte", "next_token_accuracy", "compression_ratio", "tokens", "slots"]:
        assert score[key] > 0
    assert score["tokens"] == 2 * 2048
    assert score["compression_ratio"] == pytest.approx(score["tokens"] / score["slots"])


def test_eval_scores_all_of_what_it_is_given(dmc, tmp_path):
    """In every form that text comes in, and says how much it was."""
    words = "def read(path):\n    return open(path).read()\n" * 40
    plain, lines, packed = tmp_path / "a.txt", tmp_path / "a.jsonl", tmp_path / "a.jsonl.gz"
    plain.write_text(words)
    lines.write_text(json.dumps({"text": words}) + "\n")
    packed.write_bytes(gzip.compress(lines.read_bytes()))

    def score(*flags):
        done = dmc("eval", "-m", DMC_4X, *flags, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    whole = score("--data", plain, "--length", 64)
    assert whole["whole"] and whole["files"] == 1
    assert whole["windows"] == -(-whole["tokens"] // 64)
    first_tokens = 8 * whole["windows"]  # a window's first token is given: a few bytes each
    assert len(words) - first_tokens <= whole["bytes"] < len(words)
    assert whole["perplexity"] == pytest.approx(math.exp(whole["loss"]))
    for data in (lines, packed):
        assert score("--data", data, "--length", 64)["loss"] == whole["loss"]
    part = score("--data", plain, "--length", 64, "--windows", 3)
    assert part["tokens"] == 3 * 64 and not part["whole"]
    held_out = score("--data", plain, "--length", 64, "--held-out")
    assert held_out["tokens"] < whole["tokens"] / 5
    text = dmc("eval", "-m", DMC_4X, "--data", plain, "--length", 64).stdout
    assert "1 file" in text and "all of it" in text and "perplexity" in text


def test_bench_and_inspect_speak_json(dmc):
    done = dmc("bench", "--contexts", "64,128", "--batch", "1,2", "--decode", 2, "--repeats", 1, "--json")
    rows = json.loads(done.stdout)["results"]
    assert [(r["policy"], r["context"], r["batch"]) for r in rows][:2] == [("dense", 64, 1), ("dmc", 64, 1)]
    assert len(rows) == 8
    facts = json.loads(dmc("inspect", "--windows", 1, "--length", 256, "--json").stdout)
    assert len(facts["cr_by_head"]) == facts["layers"]


def test_bench_fills_a_cache_of_a_given_size(dmc):
    """4 MiB hold so many sequences: the cache's own count of their bytes says how many."""
    few = ("bench", "--contexts", 256, "--force-cr", "2,4", "--decode", 2, "--repeats", 1)
    rows = json.loads(dmc(*few, "--kv-budget", 4, "--json").stdout)["results"]
    assert [r["policy"] for r in rows] == ["dense", "dmc", "forced", "forced"]
    for row in rows:
        assert row["cache_bytes"] <= 4 << 20 < row["cache_bytes"] * (row["batch"] + 1) / row["batch"]
    assert rows[0]["batch"] < rows[2]["batch"] < rows[3]["batch"]
    refused(dmc(*few, "--kv-budget", 0.01), USAGE, "--kv-budget")


def test_a_plan_agrees_with_the_model_itself(dmc):
    planned = json.loads(dmc("plan", "-m", DMC_4X, "--json").stdout)
    facts = json.loads(dmc("inspect", "-m", DMC_4X, "--windows", 1, "--length", 64, "--json").stdout)
    assert planned["parameters"] == facts["parameters"]
    assert planned["context"] == facts["context"]


def test_a_plan_of_a_model_that_is_not_here(dmc):
    done = dmc("plan", "-m", "llama-2-70b", "--cr", 8, "--gpus", 8)
    assert done.returncode == 0, done.stderr
    assert "each of 8 GPUs" in done.stdout
    planned = json.loads(dmc("plan", "-m", "llama-2-7b", "--gpus", 8, "--batch", 8, "--json").stdout)
    whole = planned["training_bytes"]
    assert whole["each_gpu"] == (whole["weights"] + whole["gradients"]
                                 + (whole["optimizer"] + whole["activations"]) / 8)
    served = planned["serving_bytes"]
    split = served["weights"] + served["cache"] + served["open_slots"]
    assert split / 8 < served["each_gpu"] < (split + 8 * served["activations"]) / 8
    uneven = dmc("plan", "-m", "llama-2-70b", "--gpus", 3)
    assert uneven.returncode == 0 and "no serving on 3 GPUs: the model has 8 KV heads" in uneven.stdout
    refused(dmc("plan", "-m", "llama-2-70b", "--gpus", 3, "--memory", "80GiB"), USAGE, "--gpus", "8 KV heads")
    refused(dmc("plan", "-m", "llama-2-71b"), USAGE, "llama-2-71b", "llama-2-70b")


def test_damaged_models_are_refused_in_one_sentence(dmc, model):
    weights = model / "model.safetensors"
    whole = weights.read_bytes()

    weights.write_bytes(whole[: len(whole) // 2])
    refused(dmc("run", "-m", model, "-p", "x"), DATA, weights)
    weights.write_bytes(b"\xff" * 8 + whole[8:])
    refused(dmc("run", "-m", model, "-p", "x"), DATA, weights)
    weights.unlink()
    refused(dmc("run", "-m", model, "-p", "x"), DATA, weights)
    weights.write_bytes(whole)

    edit_config(model, num_hidden_layers=6)
    refused(dmc("run", "-m", model, "-p", "x"), DATA, "model.layers.5", "missing")
    edit_config(model, num_hidden_layers=5, intermediate_size=300)
    refused(dmc("run", "-m", model, "-p", "x"), DATA, "mlp", "has shape", "300")
    edit_config(model, intermediate_size=352, architectures=["MambaForCausalLM"])
    refused(dmc("run", "-m", model, "-p", "x"), DATA, "config.json", "MambaForCausalLM")
    edit_config(model, architectures=["LlamaForCausalLM"], rms_norm_eps="remove")
    refused(dmc("run", "-m", model, "-p", "x"), DATA, "config.json", "rms_norm_eps")
    (model / "config.json").write_text("{ not json")
    refused(dmc("run", "-m", model, "-p", "x"), DATA, "config.json")


def test_data_that_cannot_be_used(dmc, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(dmc("eval", "-m", DENSE, "--data", tmp_path / "empty"), DATA, tmp_path / "empty")
    refused(dmc("eval", "-m", DENSE, "--data", tmp_path / "none"), DATA, tmp_path / "none")
    refused(dmc("train", "-m", DENSE, "-o", tmp_path / "o", "--data", tmp_path / "empty"), DATA,
            tmp_path / "empty")  # fmt: skip
    refused(dmc("eval", "-m", DENSE, "--length", 4096), USAGE, "--length", "2048")


def test_prompt_longer_than_the_context(dmc, tmp_path):
    (tmp_path / "long.txt").write_text("word " * 3000)
    refused(dmc("run", "-m", DENSE, "-f", tmp_path / "long.txt"), USAGE, "context is 2048")


def retrofit(out, text, finetune=2, checkpoint_every=100, decisions="neuron"):
    """The command line of a retrofit of a few steps."""
    options = {
        "-m": DENSE, "-o": out, "--data": text, "--cr": 2, "--batch": 1, "--length": 128,
        "--steps": 4, "--finetune-steps": finetune, "--checkpoint-every": checkpoint_every,
        "--decisions": decisions,
    }  # fmt: skip
    if decisions == "neuron":
        options["--zero-out-steps"] = 2
    return [str(x) for x in [BIN / "dmc", "retrofit", *sum(options.items(), ())]]


def test_retrofit_gives_a_model_that_runs(dmc, tmp_path, text):
    done = subprocess.run(retrofit(tmp_path / "out", text), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["DmcLlamaForCausalLM"]
    assert config["dmc_config"]["target_cr"] == 2.0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "retrofit -m" in card and "| layer | head 0 | head 1 |" in card
    assert f"{8 * 128}, in sequences of 128" in card
    records = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").open()]
    assert [r["stage"] for r in records] == ["zero-out"] * 2 + ["retrofit"] * 4 + ["finetune"] * 2
    assert dmc("run", "-m", tmp_path / "out", "-p", "x", "-n", 3).returncode == 0


def test_a_model_retrofitted_for_dms_is_served_so(dmc, tmp_path, text):
    out = tmp_path / "sparse"
    done = subprocess.run(retrofit(out, text) + ["--method", "dms", "--window", "16"],
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    config = json.loads((out / "config.json").read_text())["dmc_config"]
    assert (config["method"], config["window"]) == ("dms", 16)
    assert "Sparsification" in (out / "README.md").read_text()
    assert dmc("run", "-m", out, "-p", "x", "-n", 40).returncode == 0
    refused(dmc("eval", "-m", out, "--policy", "dmc"), USAGE, "retrofitted for dms")


def test_a_distilled_retrofit_leaves_a_model_at_each_ratio(dmc, tmp_path, text):
    out = tmp_path / "out"
    more = ["--distill", "forward", "--save-at-cr", "1.001", "--offset", "0.001"]
    done = subprocess.run(retrofit(out, text) + more, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in (out / "train.jsonl").open()]
    assert records[0]["divergence"] < 1e-5 < records[-1]["divergence"]
    assert [r["saved"] for r in records if "saved" in r] == ["cr-1.001"]
    assert str(out / "cr-1.001") in done.stderr
    config = json.loads((out / "cr-1.001" / "config.json").read_text())["dmc_config"]
    assert (config["target_cr"], config["stage"]) == (1.001, "retrofit")
    assert dmc("run", "-m", out / "cr-1.001", "-p", "x", "-n", 3).returncode == 0


def test_a_retrofit_says_which_model_to_use(dmc, tmp_path, text):
    """Four lines on held-out text, in the card, too; that a ratio was missed; and what eval says."""
    out = tmp_path / "out"
    more = ["--offset", "0.001", "--compression-weight", "0.01", "--eval-every", "3", "--json"]
    done = subprocess.run(retrofit(out, text) + more, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    what = [line["what"] for line in said["held_out"]]
    assert what[:2] == ["start", "retrofitted"] and len(what) in (2, 4)
    card = (out / "README.md").read_text()
    assert said["advice"] in card and said["advice"] in done.stderr
    for line in said["held_out"]:
        assert f"| {line['what']} | {line['compression_ratio']:.2f} | {line['loss']:.4f} |" in card
    for line, model in zip(said["held_out"], (DENSE, out)):
        windows = int(re.search(r"\((\d+) windows? of 128 tokens\)", done.stderr)[1])
        score = dmc("eval", "-m", model, "--data", text, "--held-out", "--length", 128,
                    "--windows", windows, "--json")  # fmt: skip
        score = json.loads(score.stdout)
        assert score["loss"] == pytest.approx(line["loss"], abs=1e-6)
        assert score["compression_ratio"] == pytest.approx(line["compression_ratio"])
    records = [json.loads(line) for line in (out / "train.jsonl").open()]
    assert ["held_out_loss" in r for r in records] == [False] * 2 + [True, False, False, True] + [False] * 2
    assert "learning rate" in done.stderr and "before training" in done.stderr


def test_a_ratio_that_was_missed_is_said(tmp_path, text):
    done = subprocess.run(retrofit(tmp_path / "out", text) + ["--save-at-cr", "1.9", "--decision-scale", "1"],
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "1.90 was not reached" in done.stderr
    assert "warning: the ratio of 2.00 was missed, it is 1.0" in done.stderr


def test_retrofit_refuses_what_its_method_cannot(tmp_path, text):
    for more, words in {
        ("--method", "h2o"): ["--method", "h2o"],
        ("--method", "dms", "--window", "127"): ["--delay", "127", "--length"],
        ("--method", "dmc", "--delay", "4"): ["--delay", "dmc"],
        ("--window", "5000"): ["--window", "5000", "dmc"],
        ("--distill", "sideways"): ["--distill", "sideways"],
        ("--distill-weight", "0.5"): ["--distill-weight", "--distill forward"],
        ("--save-at-cr", "1.5,2"): ["--save-at-cr", "2.00", "--cr"],
    }.items():
        done = subprocess.run(retrofit(tmp_path / "no", text) + list(more),
                              capture_output=True, text=True)  # fmt: skip
        refused(done, USAGE, *words)


def loss_of(dmc, *model):
    done = dmc("eval", "-m", *model, "--windows", 1, "--length", 256, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["loss"]


def test_an_adapter_leaves_the_model_as_it_was(dmc, tmp_path, text):
    out = tmp_path / "out"
    done = subprocess.run(retrofit(out, text, decisions="adapter"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "config.json").read_text())["dmc_config"]["decision_source"] == "adapter"
    assert "base model's weights are as they were" in (out / "README.md").read_text()
    assert [json.loads(line)["stage"] for line in (out / "train.jsonl").open()] == ["retrofit"] * 4 + ["finetune"] * 2
    assert dmc("run", "-m", out, "-p", "x", "-n", 3).returncode == 0
    in_f32 = ["--weights", "f32"]
    assert loss_of(dmc, out, "--policy", "dense", *in_f32) == loss_of(dmc, DENSE, *in_f32)
    assert "decided by an adapter" in dmc("inspect", "-m", out, "--windows", 1, "--length", 64).stdout

    alone = out / "adapter.safetensors"
    assert alone.stat().st_size < 100_000
    assert loss_of(dmc, DENSE, "--adapter", alone, *in_f32) == loss_of(dmc, out, *in_f32)
    assert dmc("inspect", "-m", DENSE, "--adapter", alone, "--check").returncode == 0
    refused(dmc("run", "-m", DMC_4X, "--adapter", alone, "-p", "x"), USAGE, "decision_channel", "--plain")
    weights = DENSE / "model.safetensors"
    refused(dmc("run", "-m", DENSE, "--adapter", weights, "-p", "x"), DATA, weights, "dmc_config")

    plain, again = tmp_path / "plain", tmp_path / "again"
    assert dmc("convert", "-m", out, "-o", plain, "--plain", "--dtype", "f16").returncode == 0
    assert dmc("convert", "-m", DENSE, "-o", again).returncode == 0
    for name in ["config.json", "model.safetensors"]:
        assert (plain / name).read_bytes() == (again / name).read_bytes(), name


def test_what_cannot_be_asked_of_a_source_of_decisions(dmc, tmp_path):
    start = ["retrofit", "-m", DENSE, "-o", tmp_path / "out", "--decisions"]
    refused(dmc(*start, "oracle"), USAGE, "--decisions", "adapter")
    refused(dmc(*start, "adapter", "--zero-out-steps", 5), USAGE, "--zero-out-steps")
    refused(dmc(*start, "neuron", "--train-base"), USAGE, "--train-base")
    refused(dmc("retrofit", "-m", DMC_4X, "-o", tmp_path / "out", "--decisions", "adapter"), USAGE,
            "decision_channel", "--plain")  # fmt: skip


def test_interrupt_leaves_a_checkpoint_to_go_on_from(tmp_path, text):
    out = tmp_path / "out"
    command = retrofit(out, text, finetune=10000)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    log = out / "train.jsonl"
    while not (log.exists() and log.read_text().count("\n") >= 3):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "--resume" in said
    assert (out / "checkpoint.safetensors").exists()

    refused_run = subprocess.run(command, capture_output=True, text=True)
    refused(refused_run, USAGE, "--resume")


def test_a_full_disk_is_said_in_one_sentence(tmp_path, text):
    """No file may grow past 1 MB: the checkpoint of 34 MB cannot be written. (That the earlier one
    survives is tested in trainer_test.cpp.)"""
    out = tmp_path / "out"
    command = retrofit(out, text, checkpoint_every=3) + ["--eval-every", "0"]
    limited = ["bash", "-c", 'trap "" XFSZ; ulimit -f 1000; exec "$@"', "-", *command]
    done = subprocess.run(limited, capture_output=True, text=True)
    refused(done, INTERNAL, "checkpoint.safetensors", "unchanged")
    assert not list(out.glob("*.tmp*"))


def test_a_demo_of_a_model_of_ones_own_compares_all_policies(dmc, tmp_path):
    done = dmc("demo", "-m", ROOT / "models" / "builtin-dms", "--quick", "-o", tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    report = (tmp_path / "demo/report.html").read_text()
    for policy in ["dense", "dms", "window", "tova", "h2o"]:
        assert f"\n{policy} " in done.stdout and policy in report
    ratios = {line.split()[0]: float(line.split()[1]) for line in done.stdout.splitlines()
              if line.split()[:1] and line.split()[0] in ["dense", "dms", "window"]}  # fmt: skip
    assert ratios["dense"] == 1.0 and ratios["window"] == pytest.approx(ratios["dms"], rel=0.1)


def test_the_quick_demo_runs_to_its_report(dmc, tmp_path):
    done = dmc("demo", "--quick", "-o", tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    for row in ("dense", "live 2x", "DMC 4x", "DMS 4x", "delayed 4x"):
        assert re.search(rf"^{row} +\d", done.stdout, re.M), done.stdout
    assert (tmp_path / "demo/report.html").read_text().startswith("<!DOCTYPE html>")
