#!/usr/bin/env python3
"""Kills trainings at random moments, resumes them, and says what was lost.

    tests/attack/kills.py [--dmc build/bin/dmc] [--kills N | --seconds S] [--seed N] [--jobs N]

A chain is a small retrofit that is killed (SIGKILL; now and then SIGTERM, SIGHUP or SIGINT) and goes
on with --resume until it comes to its end. After each kill the log must hold every step from 1 on,
each once, up to a last line that may be torn, and as many as the checkpoint knows of; at the end the
log must be the one of a run that nobody killed, the weights the same to the bit, and no file left
over. Exit code 1 if anything was lost.
"""

import argparse
import collections
import hashlib
import itertools
import json
import multiprocessing
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 16}  # fmt: skip
NOT_OF_THE_RUN = ("tokens_per_second",)
PATIENCE = 600


class Lost(Exception):
    """What a kill has cost."""


def make_model(dmc, folder):
    """A tiny model with the built-in tokenizer, and text to train on."""
    builtin = ROOT / "models" / "builtin"
    shape = folder / "shape"
    shape.mkdir(parents=True)
    config = json.loads((builtin / "config.json").read_text()) | SIZES
    (shape / "config.json").write_text(json.dumps(config))
    shutil.copy(builtin / "tokenizer.json", shape)
    text = folder / "text"
    text.mkdir()
    for document in sorted((ROOT / "docs").glob("a*.md")):
        shutil.copy(document, text)
    subprocess.run([dmc, "train", "-m", shape, "--fresh", "-o", folder / "model", "--data", text, "--steps", "1",
                    "--batch", "1", "--length", "32", "--threads", "1", "--eval-every", "0"],
                   check=True, capture_output=True, timeout=PATIENCE)  # fmt: skip


def retrofit(dmc, folder, out, *more):
    return [str(word) for word in (
        dmc, "retrofit", "-m", folder / "model", "-o", out, "--data", folder / "text", "--cr", "2", "--batch", "1",
        "--length", "32", "--warmup", "2", "--zero-out-steps", "6", "--steps", "30", "--finetune-steps", "6",
        "--checkpoint-every", "2", "--eval-every", "17", "--threads", "1", *more)]  # fmt: skip


def records(out):
    """Of the log's whole lines. A torn one may only be the last."""
    log = out / "train.jsonl"
    if not log.exists():
        return []
    *lines, _ = log.read_text().split("\n")
    found = [json.loads(line) for line in lines]
    if [record["step"] for record in found] != list(range(1, len(found) + 1)):
        raise Lost(f"the log's steps are {[record['step'] for record in found]}")
    return found


def checkpoint_step(out):
    """The step that the checkpoint is of; None: there is none."""
    path = out / "checkpoint.safetensors"
    if not path.exists():
        return None
    with path.open("rb") as file:
        [size] = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        data = file.seek(0, 2) - 8 - size
    end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    if data < end:
        raise Lost(f"the checkpoint has {data} of {end} bytes")
    return json.loads(header["__metadata__"]["progress"])["step"]


def result(out):
    """What must be the same: the log but for its times, and every weight."""
    log = [{key: value for key, value in record.items() if key not in NOT_OF_THE_RUN} for record in records(out)]
    weights = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    return log, weights


def seconds_of_training(dmc, folder, out):
    """A run that nobody kills; how long it takes from its first step on."""
    process = subprocess.Popen(retrofit(dmc, folder, out), stderr=subprocess.PIPE, text=True)
    begun = wait_for_steps(process, out, 0)
    _, said = process.communicate(timeout=PATIENCE)
    if process.returncode != 0:
        raise Lost(f"exit code {process.returncode}: {said[-400:]}")
    return time.monotonic() - begun


def wait_for_steps(process, out, before):
    """Until the log has grown beyond `before` bytes or the process has ended."""
    log = out / "train.jsonl"
    while process.poll() is None:
        if log.exists() and log.stat().st_size > before:
            break
        time.sleep(0.002)
    return time.monotonic()


def kill_once(command, out, rng, duration):
    """Starts it and kills it; the signal, or None if it came to its end before."""
    size = (out / "train.jsonl").stat().st_size if (out / "train.jsonl").exists() else 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if rng.random() < 0.9:  # in a step, a checkpoint, the model; else at any time from the start
        wait_for_steps(process, out, size)
        time.sleep(rng.uniform(0, duration) * rng.random())
    else:
        time.sleep(rng.uniform(0, 3 * duration))
    sent = rng.choices([signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT], [17, 1, 1, 1])[0]
    running = process.poll() is None
    process.send_signal(sent)
    _, said = process.communicate(timeout=PATIENCE)
    code = process.returncode
    if code == 0:
        return None
    expected = (-signal.SIGKILL,) if sent == signal.SIGKILL else (130, -sent)
    if not running or code not in expected:
        raise Lost(f"exit code {code} after {sent.name}: {said[-400:]}")
    return sent.name


def chain(job):
    """Kills one run until it has ended; counts of signals, and what was lost."""
    dmc, folder, number, seed, duration, wanted = job
    rng = random.Random(f"{seed}/{number}")
    out = folder / f"run-{number}"
    counts = collections.Counter()
    try:
        while True:
            known = checkpoint_step(out)
            more = ["--resume"] if known is not None else ["--overwrite"]
            name = kill_once(retrofit(dmc, folder, out, *more), out, rng, duration)
            if name is None:
                break
            counts[name] += 1
            step = checkpoint_step(out)
            if step is None and (out / "config.json").exists():
                break  # it had ended, all but its last words
            if (step or 0) < (known or 0) or len(records(out)) < (step or 0):
                raise Lost(f"step {known} became {step}, and the log has {len(records(out))}")
        if result(out) != wanted:
            raise Lost("the result is not that of a run that nobody killed")
        left = sorted(path.name for path in out.rglob("*") if ".tmp-" in path.name)
        if left and name is None:
            raise Lost(f"left over: {left}")
        shutil.rmtree(out)
        return counts, None
    except (Lost, OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
        return counts, f"chain {number}, after {sum(counts.values())} kills: {type(error).__name__}: {error} ({out})"


def attack(options, folder):
    """The findings, each a sentence. Says on the way what was done."""
    make_model(options.dmc, folder)
    duration = seconds_of_training(options.dmc, folder, folder / "alone")
    wanted = result(folder / "alone")
    start, counts, chains, findings = time.monotonic(), collections.Counter(), 0, []
    with multiprocessing.Pool(options.jobs) as pool:
        jobs = ((options.dmc, folder, number, options.seed, duration, wanted) for number in itertools.count())
        running = [pool.apply_async(chain, [next(jobs)]) for _ in range(options.jobs)]
        while running:
            counted, finding = running.pop(0).get()
            counts += counted
            chains += 1
            if finding:
                findings.append(finding)
                print("finding:", finding, flush=True)
            print(f"{sum(counts.values())} kills in {chains} chains, {len(findings)} findings", flush=True)
            in_time = time.monotonic() - start < options.seconds if options.seconds else True
            if in_time and (options.seconds or sum(counts.values()) < options.kills):
                running.append(pool.apply_async(chain, [next(jobs)]))
    print("by signal:", ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    return findings


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dmc", type=pathlib.Path, default=ROOT / "build" / "bin" / "dmc")
    parser.add_argument("--kills", type=int, default=200, help="how many at least, where --seconds are not given")
    parser.add_argument("--seconds", type=float, default=0.0, help="after which no further chain begins")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="chains at a time")
    options = parser.parse_args()
    options.dmc = options.dmc.resolve()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="dmc-kills-"))
    findings = attack(options, folder)
    if not findings:
        shutil.rmtree(folder)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
