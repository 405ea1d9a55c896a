"""The C++ trainer and this one from the same weights, on the same text, with the same noise: the
same losses, gradient norms and ratios, step by step, through all three stages."""

import json

import pytest
import torch
import torch.distributed as dist
from dmc.torch.data import tokenize
from dmc.torch.options import RetrofitOptions, TrainOptions
from dmc.torch.schedules import random_bits
from dmc.torch.trainer import Trainer
from tiny import SEPARATOR, write_model, write_text
from tokenizers import Tokenizer

LENGTH, BATCH, SEED = 48, 4, 7
STAGES = {"zero_out_steps": 3, "steps": 5, "finetune_steps": 3}
SAME = (
    "loss",
    "divergence",
    "extra_loss",
    "cr",
    "wanted_cr",
    "compression_weight",
    "decision_offset",
    "learning_rate",
    "gradient_norm",
)


class CorpusFeed:
    """The batches of the C++ trainer (src/text/corpus.cpp, src/train/batches.cpp): each row reads a
    stream of its own of documents that are ordered by hash and shuffled anew each epoch."""

    def __init__(self, path, tokenizer):
        texts = {json.loads(line)["text"] for line in path.read_text().splitlines()}
        hashed = sorted((self.fnv1a64(text.encode()), text) for text in texts)
        assert len(hashed) >= 100  # fewer are split in another way
        self.documents = [
            tokenizer.encode(text, add_special_tokens=False).ids + [SEPARATOR]
            for hash_, text in hashed
            if hash_ % 50 != 0
        ]
        self.rows = [self.stream(random_bits(SEED, 0, row)) for row in range(BATCH)]
        self.read = []

    @staticmethod
    def fnv1a64(content):
        value = 0xCBF29CE484222325
        for byte in content:
            value = ((value ^ byte) * 0x100000001B3) % (1 << 64)
        return value

    def stream(self, seed):
        epoch = 0
        while True:
            order, drawn = list(range(len(self.documents))), 0
            for i in range(len(order), 1, -1):
                j = random_bits(seed, epoch, drawn) % i
                order[i - 1], order[j], drawn = order[j], order[i - 1], drawn + 1
            for document in order:
                yield from self.documents[document]
            epoch += 1

    def next(self, first, rows):
        batch = [[next(row) for _ in range(LENGTH + 1)] for row in self.rows]
        return torch.tensor(batch)[first : first + rows]


@pytest.fixture(scope="module", autouse=True)
def one_process():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


# What is asked of both: (family, options of [retrofit], more of the run). The channels of these
# models are on both sides of such an offset.
NEURON = {"decisions": "neuron", "offset": 0.5, "decision_scale": 4.0}
ADAPTER = NEURON | {"decisions": "adapter"}
RUN = {"batch": 4, "lr": 3e-3, "final_lr": 1e-3, "warmup": 2}
RUNS = {
    "dmc": ("llama", NEURON | {"method": "dmc", "cr": 3.0, "window": 6}, RUN),
    "dms": ("mistral", NEURON | {"method": "dms", "cr": 3.0, "delay": 5}, RUN | {"accumulate": 2}),
    "dmc-delayed": ("qwen2", NEURON | {"cr": 2.0, "delay": 6, "window": 4}, RUN),
    "normed": (
        "qwen3",
        NEURON | {"method": "dmc", "cr": 2.0, "distill": "forward", "distill_weight": 0.5},
        RUN,
    ),
    "adapter": (
        "llama",
        ADAPTER | {"method": "dms", "cr": 2.0, "distill": "forward", "delay": 8},
        RUN | {"lr": 2e-2},
    ),
    "adapter-base": (
        "qwen3",
        ADAPTER | {"cr": 2.0, "train_base": True, "distill": "reverse", "delay": 8},
        RUN,
    ),
    "defaults": ("llama", {}, {"batch": 4}),
}


def flags(retrofit, run):
    words = []
    for name, value in (retrofit | run).items():
        words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return words


@pytest.mark.parametrize("name", RUNS)
def test_both_trainers_run_the_same(name, tmp_path, dmc):
    family, retrofit, run = RUNS[name]
    stages = {
        k: v
        for k, v in STAGES.items()
        if k != "zero_out_steps" or retrofit.get("decisions") == "neuron"
    }
    model = write_model(tmp_path / "model", family)
    text = write_text(tmp_path / "text.jsonl")
    done = dmc(
        "retrofit",
        "-m",
        model,
        "-o",
        tmp_path / "cpp",
        "--data",
        text,
        "--length",
        LENGTH,
        "--seed",
        SEED,
        "--eval-every",
        0,
        "--threads",
        1,
        *flags(retrofit, run | stages),
    )
    assert done.returncode == 0, done.stderr
    wanted = [json.loads(line) for line in (tmp_path / "cpp/train.jsonl").read_text().splitlines()]

    tokenize(str(model), SEPARATOR, [str(text)], str(tmp_path / "shard"))
    trainer = Trainer(
        TrainOptions(
            model=str(model),
            out=str(tmp_path / "python"),
            train=[str(tmp_path / "shard")],
            length=LENGTH,
            seed=SEED,
            retrofit=RetrofitOptions(**retrofit),
            **run,
            **stages,
        )
    )
    trainer.data = CorpusFeed(text, Tokenizer.from_file(str(model / "tokenizer.json")))
    got = []
    assert trainer.run(got.append)

    assert [r["stage"] for r in got] == [r["stage"] for r in wanted]
    for mine, theirs in zip(got, wanted, strict=True):
        for key in SAME:
            assert mine[key] == pytest.approx(theirs[key], rel=1e-5, abs=1e-6), (mine["step"], key)
    if name != "defaults":
        assert max(r["cr"] for r in got) > 1.05  # there is something to compare

    trainer.export(tmp_path / "python")
    assert_same_model(tmp_path / "python", tmp_path / "cpp")


def assert_same_model(python, cpp):
    from safetensors.torch import load_file

    configs = [json.loads((folder / "config.json").read_text()) for folder in (python, cpp)]
    for name in ("architectures", "model_type", "dmc_config", "dtype", "tie_word_embeddings"):
        assert configs[0][name] == configs[1][name], name
    mine, theirs = (load_file(folder / "model.safetensors") for folder in (python, cpp))
    assert mine.keys() == theirs.keys()
    for name, x in mine.items():
        torch.testing.assert_close(
            x, theirs[name], rtol=1e-3, atol=1e-4, msg=lambda m, n=name: n + m
        )
