#!/usr/bin/env python3
"""same_text.py DMC DEVICE: whether the built-in models write on DEVICE what they write on the CPU.

In f32, 200 tokens behind each prompt, the likeliest and sampled ones; a line says how many are equal before
the two part (near ties may fall either way, as sums have another order). Exit code 0: all are the same.
"""
import itertools
import json
import pathlib
import subprocess
import sys

MODELS = pathlib.Path(__file__).resolve().parents[2] / "models"
PROMPTS = ["def read_file(path):\n", "class Stack:\n    def __init__(self", "import os\nimport sys\n" * 40]
TEMPERATURES = [0, 0.8]
# Model, how it is compressed, prompt. A budget means most to a long prompt.
CASES = [(model, [], number) for model in ("builtin", "builtin-4x", "builtin-dms")
         for number in range(len(PROMPTS))]
CASES += [("builtin", ["--policy", policy, "--budget", "96"], 2)
          for policy in ("window", "tova", "h2o", "snapkv")]


def write(dmc, device, model, options, prompt, temperature):
    """The tokens that dmc writes, and the rest of what it says as JSON."""
    command = [dmc, "run", "-m", MODELS / model, "-p", prompt, "-n", "200", "--temperature",
               temperature, "--seed", "1", "--weights", "f32", "--kv", "f32", "--device", device,
               "--json", *options]
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"same_text: {run.stderr.strip()}")
    return json.loads(run.stdout)


def main():
    if len(sys.argv) != 3:
        sys.exit("same_text: expected same_text.py DMC DEVICE")
    _, dmc, device = sys.argv
    same = True
    for (model, options, number), temperature in itertools.product(CASES, TEMPERATURES):
        cpu = write(dmc, "cpu", model, options, PROMPTS[number], temperature)
        other = write(dmc, device, model, options, PROMPTS[number], temperature)
        pairs = list(zip(cpu["token_ids"], other["token_ids"]))
        equal = next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
        line = {"model": model, "options": " ".join(options), "prompt": number, "temperature": temperature,
                "tokens": len(cpu["token_ids"]), "equal": equal,
                "cr_cpu": cpu["compression_ratio"], "cr_device": other["compression_ratio"],
                "decode_tokens_per_second": other["decode_tokens_per_second"]}
        print(json.dumps(line), flush=True)
        same &= cpu["token_ids"] == other["token_ids"]
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
