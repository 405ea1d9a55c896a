#!/usr/bin/env python3
"""dmc's Python beside its programs, on one thread of the CPU, in turn: medians of the rounds' ratios,
and the ratio of the best rounds, which says more where others use the cores.

    speed.py generate MODEL [--rounds 9]   tokens a second, dmc.LLM by `dmc run` (the wheel installed)
    speed.py step MODEL --data TEXT        a training step's, dmc.torch by `dmc retrofit`

In each round both do the same work, one right after the other, so that what else a machine does
falls on both. MODEL is what each reads; for `step` a Hugging Face directory."""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("DMC_BIN", ROOT / "build" / "bin"))
PROMPT = "def read_file(path):"


def call(*words, **keywords):
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, **keywords)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return done.stdout


def report(what, rounds):
    ratios = [python / program for program, python in rounds]
    program, python = (statistics.median(r[i] for r in rounds) for i in (0, 1))
    best = max(r[1] for r in rounds) / max(r[0] for r in rounds)
    print(
        f"{what}: program {program:.1f}, Python {python:.1f} tok/s; median ratio "
        f"{statistics.median(ratios):.3f} of {len(ratios)} ({min(ratios):.3f} to {max(ratios):.3f}), of the best {best:.3f}"
    )


def program_rate(options):
    words = ["-m", options.model, "-p", PROMPT, "-n", options.tokens, "--temperature", "0"]
    said = json.loads(call(BIN / "dmc", "run", *words, "--threads", "1", "--json"))
    prefill = said["prompt_tokens"] / said["prefill_tokens_per_second"]
    return options.tokens / (prefill + options.tokens / said["decode_tokens_per_second"])


def python_rate(llm, tokens):
    """Of all, prompt and text, as the program's."""
    start = time.perf_counter()
    llm.generate(PROMPT, max_tokens=tokens, temperature=0, ignore_eos=True)
    return tokens / (time.perf_counter() - start)


def generate(options):
    import dmc

    dmc.set_threads(1)
    llm = dmc.LLM(options.model, max_num_seqs=1, enable_prefix_caching=False)
    rounds = []
    for number in range(options.rounds + 1):  # the first warms up
        first_python = python_rate(llm, options.tokens) if number % 2 else None
        program = program_rate(options)
        python = first_python or python_rate(llm, options.tokens)
        rounds.append((program, python))
    report(f"generate {options.tokens} tokens", rounds[1:])


def rate_of_log(path, skipped=2):
    lines = path.read_text().splitlines()[skipped:]
    return statistics.median(json.loads(line)["tokens_per_second"] for line in lines)


def program_steps(options, folder):
    out = folder / "program"
    half = options.steps // 2
    words = ["-m", options.model, "-o", out, "--data", options.data, "--length", options.length]
    words += ["--batch", options.batch, "--steps", half, "--finetune-steps", half, "--eval-every", 0]
    words += ["--method", options.method, "--threads", 1, "--overwrite"]
    call(BIN / "dmc", "retrofit", *words)
    return rate_of_log(out / "train.jsonl")


def python_steps(options, folder, environment):
    half = options.steps // 2
    (folder / "config.toml").write_text(
        f'model = "{options.model}"\nout = "{folder}/python"\ntrain = ["{folder}/shard"]\n'
        f"length = {options.length}\nbatch = {options.batch}\nsteps = {half}\n"
        f'finetune_steps = {half}\n[retrofit]\nmethod = "{options.method}"\n'
    )
    words = [sys.executable, "-m", "dmc.torch", "retrofit", folder / "config.toml", "--overwrite"]
    call(*words, env=environment)
    return rate_of_log(folder / "python" / "train.jsonl")


def step(options):
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "python"),
        "DMC_TORCH_OPS": os.environ.get("DMC_TORCH_OPS", str(BIN / "dmc_torch_ops.so")),
        "OMP_NUM_THREADS": "1",
    }
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        shard = ["tokenize", "-m", options.model, "-o", folder / "shard", options.data]
        shard += ["--separator", "0"] if options.separator else []
        call(sys.executable, "-m", "dmc.torch", *shard, env=environment)
        rounds = []
        for _ in range(options.rounds):
            program = program_steps(options, folder)
            rounds.append((program, python_steps(options, folder, environment)))
            report(f"step of {options.batch} x {options.length}, {options.method}", rounds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    for function, more in (
        (generate, {"rounds": 9, "tokens": 128}),
        (step, {"rounds": 5, "length": 256, "batch": 4, "steps": 12}),
    ):
        command = commands.add_parser(function.__name__)
        command.add_argument("model", type=pathlib.Path)
        for name, value in more.items():
            command.add_argument(f"--{name}", type=int, default=value)
        command.set_defaults(run=function)
    command.add_argument("--data", required=True, help="a text file")
    command.add_argument("--method", default="dmc-delayed")
    command.add_argument("--separator", action="store_true", help="documents end with token 0")
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
