"""`torchrun -m dmc.torch retrofit` from text to a model that `dmc` runs, with a process killed on
the way."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import torch
import transformers
from dmc.torch import OptionError, RetrofitOptions, data, retrofit
from dmc.torch.__main__ import main
from dmc.torch.options import read_config
from tiny import ENVIRONMENT, VOCABULARY, write_model, write_text

ROOT = pathlib.Path(__file__).resolve().parents[3]
CONFIG = """
model = "{0}/model"
out = "{0}/out"
train = ["{0}/text"]
valid = ["{0}/valid"]
length = 48
batch = 4
steps = 40
finetune_steps = 10
lr = 1e-2
checkpoint_every = 5
activation_checkpointing = true

[retrofit]
method = "dms"
decisions = "adapter"
distill = "forward"
cr = 3.0
delay = 6
offset = 1.0
"""


@pytest.fixture
def config(tmp_path):
    write_model(tmp_path / "model")
    write_text(tmp_path / "text.jsonl")
    (tmp_path / "valid.txt").write_text((ROOT / "tools" / "lint_includes.py").read_text()[:6000])
    for name in ("text.jsonl", "valid.txt"):
        out = str(tmp_path / name.split(".")[0])
        assert (
            main(["tokenize", "-m", str(tmp_path / "model"), "-o", out, str(tmp_path / name)]) == 0
        )
    (tmp_path / "config.toml").write_text(CONFIG.format(tmp_path))
    return tmp_path / "config.toml"


def records(config):
    log = config.parent / "out" / "train.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def workers_of(process):
    return [
        int(pid)
        for pid in pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
        .read_text()
        .split()
    ]


def launch(config, steps, *more):
    """Two processes, once they have done so many steps."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    launched = subprocess.Popen(
        [*torchrun, "-m", "dmc.torch", "retrofit", str(config), *more],
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    while len(records(config)) < steps and launched.poll() is None:
        time.sleep(0.05)
    return launched


def test_a_process_that_stands_still_is_named(config):
    launched = launch(config, 2, "--set", "timeout=4")
    stopped = workers_of(launched)[1]
    os.kill(stopped, signal.SIGSTOP)
    said = ""
    while "has lost" not in said:
        said = launched.stderr.readline()
        assert said, "torchrun ended without a word of it"
    os.kill(stopped, signal.SIGKILL)
    launched.communicate(timeout=120)
    assert "rank 0 of 2 has lost rank 1," in said


def test_survives_a_lost_process_and_is_served_as_measured(config, dmc):
    launched = launch(config, 8)
    os.kill(workers_of(launched)[1], signal.SIGKILL)
    killed = time.monotonic()
    _, errors = launched.communicate(timeout=120)
    assert time.monotonic() - killed < 60
    assert launched.returncode != 0
    assert errors.count("rank 0 of 2 has lost rank 1,") == 1, errors

    done = len(records(config))
    alone = subprocess.run(
        [sys.executable, "-m", "dmc.torch", "retrofit", str(config), "--resume"],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
    )
    assert alone.returncode == 0, alone.stderr
    steps = [record["step"] for record in records(config)]
    assert steps == list(range(1, 51)) and done < 50
    assert records(config)[-1]["cr"] > 1.1

    out = config.parent / "out"
    measured = json.loads((out / "result.json").read_text())

    def loss(model, *options):
        text = ["--data", config.parent / "valid.txt", "--length", "48", "--weights", "f32"]
        evaluated = dmc("eval", "-m", model, "--json", *text, *options)
        assert evaluated.returncode == 0, evaluated.stderr
        return json.loads(evaluated.stdout)["loss"]

    assert measured["held_out_loss"] == pytest.approx(loss(out, "--kv", "f32"), rel=2e-5)
    # The base is what it was.
    assert loss(out, "--policy", "dense") == loss(config.parent / "model")


def test_a_loop_of_ones_own(tmp_path):
    write_model(tmp_path, "qwen2")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).train()
    decisions = retrofit(
        model, RetrofitOptions(method="dmc", decisions="neuron", cr=2.0, offset=0.5), length=32
    )
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    tokens = torch.randint(0, VOCABULARY, (4, 32), generator=torch.Generator().manual_seed(1))
    ratios = []
    for step in range(6):
        decisions.begin_step("retrofit", step, 6, global_step=step)
        loss = model(input_ids=tokens, labels=tokens).loss + decisions.extra_loss()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        ratios.append(decisions.end_step())
    assert decisions.weight != 1.0 and all(ratio >= 1.0 for ratio in ratios)
    with pytest.raises(ValueError, match="without padding"):
        model(input_ids=tokens, attention_mask=torch.zeros_like(tokens))
    with pytest.raises(OptionError, match="in retrofit already"):
        retrofit(model)


def test_shards_are_read_in_an_order_of_their_own(tmp_path):
    writer = data.ShardWriter(str(tmp_path / "a"), 1 << 16)
    for document in range(50):
        writer.add([document * 7 + i for i in range(7)])
    writer.close()
    other = data.ShardWriter(str(tmp_path / "b"), 1 << 20)
    other.add(list(range(1000, 1101)))
    other.close()

    def mixture():
        return data.Mixture(
            [str(tmp_path / "a"), str(tmp_path / "b.bin")],
            [3.0, 1.0],
            length=10,
            batch=4,
            vocab=2000,
            seed=3,
        )

    whole, parts, later = mixture(), mixture(), mixture()
    batches = [whole.next(0, 4) for _ in range(20)]
    for batch in batches[:7]:
        assert (batch[:, 1:] - batch[:, :-1] == 1).all()  # both shards count
        assert torch.equal(parts.next(2, 2), batch[2:])  # of another process
    assert whole.read == [60, 20]
    later.read = list(parts.read)
    for batch in batches[7:]:
        assert torch.equal(later.next(0, 4), batch)
    # Each epoch has every window once, in another order.
    rows = torch.cat(batches)
    firsts = rows[rows[:, 0] < 1000][:, 0]
    epochs = [firsts[:34].tolist(), firsts[34:60].tolist()]
    assert sorted(epochs[0]) == list(range(0, 340, 10))
    assert len(set(epochs[1])) == 26 and epochs[1] != epochs[0][:26]


@pytest.mark.parametrize("count", [1, 2, 3, 64, 65, 1000])
def test_permutations_are_some(count):
    orders = [[data.permuted(i, count, 5, epoch) for i in range(count)] for epoch in (0, 1)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(count))
    assert count < 64 or orders[0] != orders[1]


def test_damaged_shards_are_refused(tmp_path):
    writer = data.ShardWriter(str(tmp_path / "a"), 1 << 16)
    writer.add(list(range(100)))
    writer.close()
    whole = (tmp_path / "a.idx").read_bytes()
    for damaged in (
        b"",
        whole[:20],
        whole[:-1],
        b"X" + whole[1:],
        whole[:34] + b"\xff" + whole[35:],
    ):
        (tmp_path / "a.idx").write_bytes(damaged)
        with pytest.raises(OptionError):
            data.Shard(str(tmp_path / "a"))
    (tmp_path / "a.idx").write_bytes(whole)
    with pytest.raises(OptionError, match="the model knows 50"):
        data.Mixture([str(tmp_path / "a")], None, length=99, batch=1, vocab=50, seed=1).next(0, 1)
    with pytest.raises(OptionError, match="fewer than a sequence"):
        data.Mixture([str(tmp_path / "a")], None, length=100, batch=1, vocab=500, seed=1)


@pytest.mark.parametrize(
    "change,message",
    [
        ('retrofit.method="h2o"', 'method: "h2o" was given, expected one of "dmc"'),
        ("retrofit.cr=0.5", "cr: 0.5 was given"),
        ("retrofit.delay=30", "delay: 30 keeps so many of 48 tokens"),
        ("retrofit.window=3", "window: method dms cannot be given any"),
        ("stepz=3", "stepz is none of"),
        ('steps="many"', "steps is 'many', expected int"),
        ("batch=", "Invalid"),
        ("batch=3", "batch: 3 was given, expected a multiple of 2"),
        ("length=4096", "length: 4096 was given, expected 2 to the model's context"),
    ],
)
def test_mistakes_are_said_in_a_sentence(tmp_path, change, message):
    path = tmp_path / "config.toml"
    path.write_text(CONFIG.format(tmp_path))
    with pytest.raises(OptionError) as caught:
        read_config(path, [change]).resolved(context=256, parameters=1e6, hidden=32, shares=2)
    assert message in str(caught.value)


def test_recipes_are_read():
    recipes = sorted((ROOT / "recipes").glob("*.toml"))
    assert len(recipes) >= 5
    for path in recipes:
        options = read_config(path)
        shares = options.accumulate * 4
        run = options.resolved(context=8192, parameters=7e9, hidden=4096, shares=shares)
        assert run.retrofit.cr > 1.0 and run.total_steps() > 0 and run.batch % shares == 0
