#!/usr/bin/env python3
"""The peak memory of dmc.torch's sharded trainer beside what `dmc plan --fsdp` says of it.

    memory.py [--processes 2] [--sizes small,large]

Trains two steps of each model, random weights of a Llama, on CPU processes, and ends with 1 if a
peak is not within 15 % of the plan. What a process takes before it has a model is not counted."""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("DMC_BIN", ROOT / "build" / "bin"))
SIZES = {
    "small": dict(hidden_size=512, intermediate_size=1536, num_hidden_layers=12),
    "large": dict(hidden_size=1024, intermediate_size=2816, num_hidden_layers=16),
}
VOCABULARY, LENGTH, BATCH = 4096, 256, 4


def status(name):
    """KiB of a line of /proc/self/status, in bytes."""
    text = pathlib.Path("/proc/self/status").read_text()
    return int(text.split(name + ":")[1].split()[0]) * 1024


def make(folder, size):
    import numpy as np
    import torch
    import transformers
    from dmc.torch.data import ShardWriter

    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        num_attention_heads=size["hidden_size"] // 64,
        num_key_value_heads=size["hidden_size"] // 128,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
        **size,
    )
    torch.manual_seed(1)
    transformers.LlamaForCausalLM(config).save_pretrained(folder / "model")
    writer = ShardWriter(str(folder / "shard"), VOCABULARY)
    writer.add(np.random.default_rng(1).integers(0, VOCABULARY, 4 * BATCH * LENGTH).tolist())
    writer.close()


def train(folder, checkpointing):
    """A rank of torchrun: prints its peak."""
    import torch
    import torch.distributed as dist
    from dmc.torch.launch import leave
    from dmc.torch.options import TrainOptions
    from dmc.torch.trainer import Trainer

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    torch.ones(64, 64, requires_grad=True).matmul(torch.ones(64, 64)).sum().backward()
    before = status("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    options = TrainOptions(
        model=str(folder / "model"), train=[str(folder / "shard")], out=str(folder / "out"),
        length=LENGTH, batch=BATCH, steps=1, finetune_steps=1, checkpoint_every=100,
        activation_checkpointing=checkpointing,
    )  # fmt: skip
    trainer = Trainer(options)
    marks = [status("VmHWM") - before]
    trainer.run(lambda record: marks.append(status("VmHWM") - before))
    if dist.get_rank() == 0:
        print(json.dumps(marks), flush=True)
    dist.destroy_process_group()
    leave(0)


def measured(folder, processes, checkpointing):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    words = [*launch, str(processes), __file__, "--rank-of", str(folder)]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "python"),
        "DMC_TORCH_OPS": os.environ.get("DMC_TORCH_OPS", str(BIN / "dmc_torch_ops.so")),
        "OMP_NUM_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": "65536",  # what is freed is given back
    }
    words += ["--checkpointing"] if checkpointing else []
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout)


def planned(folder, processes):
    words = [BIN / "dmc", "plan", "-m", folder / "model", "--batch", BATCH, "--context", LENGTH]
    words += ["--gpus", processes, "--fsdp", "--json"]
    done = subprocess.run(list(map(str, words)), stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--sizes", default=",".join(SIZES))
    parser.add_argument("--rank-of", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--checkpointing", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank_of:
        return train(options.rank_of, options.checkpointing)
    sys.path.append(str(ROOT / "python"))
    within = True
    for name in options.sizes.split(","):
        with tempfile.TemporaryDirectory() as folder:
            make(pathlib.Path(folder), SIZES[name])
            plan = planned(pathlib.Path(folder), options.processes)
            peak = max(measured(pathlib.Path(folder), options.processes, options.checkpointing))
        said = plan["training_bytes"]["each_gpu"]
        print(
            f"{name}: {plan['parameters'] / 1e6:.1f}M parameters, {options.processes} processes: peak "
            f"{peak / 2**20:.0f} MiB, plan {said / 2**20:.0f} MiB, ratio {peak / said:.3f}"
        )
        within &= abs(peak / said - 1.0) <= 0.15
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
