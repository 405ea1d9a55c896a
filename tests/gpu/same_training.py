#!/usr/bin/env python3
"""same_training.py DMC DEVICE: whether the built-in model trains on DEVICE as it does on the CPU.

A few steps of each kind of training in f32, whose logs must be the CPU's but for the order of sums, and in
bf16, which may differ as much as rounding does. Then a run that is stopped on DEVICE goes on on the CPU. A
line of JSON for each. Exit code 0: all agree.
"""
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
STEPS = ["--zero-out-steps", "2", "--steps", "3", "--finetune-steps", "3"]
RUNS = {
    "dense": ["train", "--steps", "6"],
    "dmc": ["retrofit", *STEPS],
    "dms": ["retrofit", "--method", "dms", "--window", "16", *STEPS],
    "adapter": ["retrofit", "--decisions", "adapter", "--distill", "forward", *STEPS[2:]],
}
NUMBERS = ("loss", "divergence", "extra_loss", "cr", "gradient_norm")
# Largest difference of a number, relative to 1 or to the number if that is larger. In f32: six steps of
# sums in another order, and decisions that fall the other way by it.
LIMITS = {"f32": 2e-3, "bf16": 1e-1}


def command(dmc, words, device, precision, out):
    return [str(word) for word in (
        dmc, *words, "-m", ROOT / "models" / "builtin", "-o", out, "--data", ROOT / "docs", "--batch", "2",
        "--length", "128", "--warmup", "2", "--device", device, "--precision", precision)]


def log(out):
    return [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]


def train(dmc, words, device, precision, out):
    run = subprocess.run(command(dmc, words, device, precision, out), capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"same_training: {run.stderr.strip()}")
    return log(out)


def difference(expected, got):
    """The largest relative difference of two logs of the same steps."""
    if len(expected) != len(got):
        return float("inf")
    return max(abs(a[number] - b[number]) / max(1.0, abs(a[number]))
               for a, b in zip(expected, got) for number in NUMBERS)


def say(name, device, precision, worst):
    limit = LIMITS[precision]
    print(json.dumps({"run": name, "device": device, "precision": precision, "difference": worst,
                      "limit": limit}), flush=True)
    return worst <= limit


def stopped_and_resumed(dmc, device, folder):
    """The log of a run that is interrupted on `device` and goes on on the CPU, to its end."""
    out = folder / "moved"
    words = [*RUNS["dmc"], "--checkpoint-every", "1"]
    with subprocess.Popen(command(dmc, words, device, "f32", out), stderr=subprocess.DEVNULL) as run:
        while run.poll() is None and not (out / "checkpoint.safetensors").exists():
            time.sleep(0.01)
        run.send_signal(signal.SIGINT)
    return train(dmc, [*words, "--resume"], "cpu", "f32", out)


def main():
    if len(sys.argv) != 3:
        sys.exit("same_training: expected same_training.py DMC DEVICE")
    _, dmc, device = sys.argv
    same = True
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for kind, words in RUNS.items():
            expected = train(dmc, words, "cpu", "f32", folder / f"{kind}-cpu")
            for precision in LIMITS:
                got = train(dmc, words, device, precision, folder / f"{kind}-{precision}")
                same &= say(kind, device, precision, difference(expected, got))
        moved = stopped_and_resumed(dmc, device, folder)
        same &= say("dmc, resumed on the CPU", device, "f32", difference(log(folder / "dmc-cpu"), moved))
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
