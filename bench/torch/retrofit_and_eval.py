#!/usr/bin/env python3
"""A short retrofit by adapter through torchrun, and whether `dmc eval` of what it exports measures
the loss that training measured.

    retrofit_and_eval.py -m DIR --train TEXT... --valid TEXT [-o OUT] [--processes 2] [--steps 12]

DIR is a Hugging Face directory (of a GGUF file: `dmc convert -m FILE -o DIR --dtype f32`), texts
are .txt files. Ends with 1 if the losses differ by more than one part in 20,000."""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("DMC_BIN", ROOT / "build" / "bin"))
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(ROOT / "python"), os.environ.get("PYTHONPATH", "")]),
    "DMC_TORCH_OPS": os.environ.get("DMC_TORCH_OPS", str(BIN / "dmc_torch_ops.so")),
}


def call(*words):
    print("+", *map(str, words), file=sys.stderr, flush=True)
    subprocess.run(list(map(str, words)), env=ENVIRONMENT, check=True)


def evaluated(out, options):
    words = [BIN / "dmc", "eval", "-m", out, "--data", options.valid, "--length", options.length]
    words += ["--weights", "f32", "--kv", "f32", "--json"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def retrofit(options, folder, out):
    module = [sys.executable, "-m", "dmc.torch"]
    for name, texts in (("train", options.train), ("valid", [options.valid])):
        call(*module, "tokenize", "-m", options.model, "-o", folder / name, *texts)
    config = folder / "config.toml"
    config.write_text(
        f'model = "{options.model}"\nout = "{out}"\ntrain = ["{folder}/train"]\n'
        f'valid = ["{folder}/valid"]\nlength = {options.length}\nbatch = {options.batch}\n'
        f"steps = {options.steps}\nfinetune_steps = {options.steps}\nlr = {options.lr}\n"
        f'warmup = 2\n[retrofit]\ndecisions = "adapter"\ncr = {options.cr}\n'
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    call(*launch, options.processes, "-m", "dmc.torch", "retrofit", config)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", type=pathlib.Path, required=True)
    parser.add_argument("--train", nargs="+", required=True)
    parser.add_argument("--valid", required=True)
    parser.add_argument("-o", "--out", type=pathlib.Path, help="kept; default: a temporary folder")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=12, help="of each of the two stages")
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--cr", type=float, default=3.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = options.out or pathlib.Path(folder) / "out"
        retrofit(options, pathlib.Path(folder), out)
        trained = json.loads((out / "result.json").read_text())
        served = evaluated(out, options)
    loss, ratio = trained["held_out_loss"], trained["held_out_cr"]
    apart = abs(served["loss"] / loss - 1.0)
    print(f"training: loss {loss:.6f} at CR {ratio:.3f}; dmc eval: {served['loss']:.6f}; {apart:.1e} apart")
    return 0 if apart < 5e-5 else 1


if __name__ == "__main__":
    sys.exit(main())
