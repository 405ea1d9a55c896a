#!/usr/bin/env python3
"""Runs dmc on damaged model directories and on random flags, and says what it should not have done.

    tests/attack/attack.py [--dmc build/bin/dmc] [--directories N | --seconds S] [--seed N] [--jobs N]
    tests/attack/attack.py --replay OUT/findings/000123

Each directory is a copy of a tiny model with one to three damages of the classes in mutations.py.
A command on it may succeed or refuse it (exit 2 or 3, one sentence). A finding is: a signal, another
exit code, "internal check failed", more than one sentence or none, control characters on stderr,
too much time (of the processor) or memory. Directory i of a seed is always the same one.
"""

import argparse
import collections
import json
import multiprocessing
import os
import pathlib
import random
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import mutations
import tiny_models

ROOT = pathlib.Path(__file__).resolve().parents[2]
REFUSED = (2, 3)
CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\xaa-\xae]")
TEXT = "The cat sat on the mat. " * 40


def commands_on(model, folder, text):
    """Name -> arguments; `model` is what -m names."""
    adapter = ["--adapter", str(folder / "adapter.safetensors")] if (folder / "adapter.safetensors").exists() else []
    run = ["-m", str(model), "--threads", "1", *adapter]
    return {
        "inspect": ["inspect", "--check", "--values", *run],
        "heads": ["inspect", "--data", text, "--length", "16", "--windows", "1", *run],
        "run": ["run", *run, "-p", "the cat", "-n", "4"],
        "chat": ["run", *run, "--chat", "-p", "hello <|eot|>", "-n", "4"],
        "eval": ["eval", *run, "--data", text, "--length", "16", "--windows", "2"],
        "plan": ["plan", "-m", str(model), "--context", "16"],
    }


def convert_on(model, folder):
    kinds = [["--dtype", "f16"], ["--weights", "int8"], ["--plain"], []]
    return ["convert", "-m", str(model), "-o", str(folder) + "-out", *kinds[len(str(folder)) % 4]]


class Limits:
    def __init__(self, seconds, megabytes):
        self.seconds, self.megabytes = seconds, megabytes

    def apply(self):
        resource.setrlimit(resource.RLIMIT_CPU, (int(self.seconds) + 1, int(self.seconds) + 2))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        hard = 4 * self.megabytes << 20  # what is above the limit is seen in the peak; this ends it
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


class Outcome:
    """How one command ended: `problem` is the class of a finding, or empty."""

    def __init__(self, code, stderr, stdout, seconds, megabytes, hung):
        self.code, self.stderr, self.seconds, self.megabytes = code, stderr, seconds, megabytes
        self.stdout, self.hung = stdout, hung

    def problem(self, limits, quiet_stdout):
        if self.hung or self.code in (-24, -9) or self.seconds > limits.seconds:
            return "hang"
        if self.code < 0:
            return f"signal {-self.code}"
        if self.megabytes > limits.megabytes:
            return "memory"
        if b"internal check failed" in self.stderr:
            return "internal check"
        if self.code not in (0, *REFUSED):
            return f"exit code {self.code}"
        sentences = [line for line in self.stderr.split(b"\n") if line.startswith(b"dmc: ")]
        if self.code != 0 and (len(sentences) != 1 or len(sentences[0]) > 1500):
            return "not one sentence"
        if CONTROL.search(self.stderr) or (quiet_stdout and CONTROL.search(self.stdout)):
            return "control characters"
        return ""


def execute(command, limits, folder):
    with open(folder / "stdout", "w+b") as out, open(folder / "stderr", "w+b") as err:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, preexec_fn=limits.apply, cwd=folder
        )
        fd = os.pidfd_open(child.pid)
        # A process that waits for something uses no processor time.
        hung = not select.select([fd], [], [], 12 * limits.seconds)[0]
        if hung:
            child.kill()
        os.close(fd)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        seconds, peak = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
        return Outcome(child.returncode, err.read(1 << 20), out.read(1 << 16), seconds, peak, hung)


def choose_bases(classes, bases):
    for cls, kind in mutations.ONLY.items():
        if cls in classes:
            return [base for base in bases if base.name.startswith(kind)]
    # The shipped models are large beside the others.
    return [base for base in bases if not base.name.startswith("builtin")] * 4 + bases


def damaged(rng, bases, folder, only):
    """A damaged copy in `folder`; gives its kind and the classes of damage."""
    classes = rng.choices(only or list(mutations.CLASSES), k=rng.choice([1, 1, 2, 3]))
    base = rng.choice(choose_bases(classes, bases))
    shutil.copytree(base, folder)
    for cls in classes:
        try:
            mutations.CLASSES[cls](rng, folder)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, OSError, RecursionError):
            pass  # an earlier damage left nothing that this one could work on
    return base.name, classes


class Attack:
    def __init__(self, options):
        self.options = options
        self.limits = Limits(options.time, options.memory)
        self.convert_limits = Limits(4 * options.time, options.memory + 1200)  # with LibTorch
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="dmc-attack-", dir=options.work))
        self.bases = tiny_models.write_all(self.work / "bases")
        self.text = self.work / "text.txt"
        self.text.write_text(TEXT)
        self.flags = flags_of(options.dmc)

    def directory(self, i):
        rng = random.Random(f"{self.options.seed}:{i}")
        if rng.random() < self.options.flags:
            return [self.flag_attempt(rng, i)]
        folder = self.work / f"d{i:06}" / "model"
        folder.parent.mkdir()
        kind, classes = damaged(rng, self.bases, folder, self.options.classes)
        model = folder / "model.gguf" if kind.startswith("gguf") else folder
        commands = commands_on(model, folder, str(self.text))
        if rng.random() < self.options.convert:
            commands["convert"] = convert_on(model, folder)
        results = [self.attempt(i, "+".join(sorted(set(classes))), name, arguments, folder.parent)
                   for name, arguments in commands.items()]  # fmt: skip
        shutil.rmtree(folder.parent, ignore_errors=True)
        return results

    def attempt(self, i, cls, name, arguments, folder):
        limits = self.convert_limits if name == "convert" else self.limits
        outcome = execute([self.options.dmc, *arguments], limits, folder)
        problem = outcome.problem(limits, quiet_stdout=name in ("inspect", "plan", "convert"))
        if problem:
            self.keep(i, cls, name, arguments, folder, outcome, problem)
        result = "accepted" if outcome.code == 0 else "refused"
        return cls, name, problem or result, outcome.seconds, outcome.megabytes, i

    def flag_attempt(self, rng, i):
        folder = self.work / f"d{i:06}"
        folder.mkdir()
        name = rng.choice(list(self.flags))
        model = rng.choice(self.bases)
        model = model / "model.gguf" if model.name.startswith("gguf") else model
        arguments = [name, "-m", str(model), *(["-p", "x", "-n", "4"] if name == "run" else [])]
        for flag in rng.choices(self.flags[name], k=rng.randrange(1, 6)):
            arguments.append(flag)
            if rng.random() < 0.85:
                arguments.append(rng.choice(values_for_flags(self)))
        result = self.attempt(i, "flags", name, arguments, folder)
        shutil.rmtree(folder, ignore_errors=True)
        return result

    def keep(self, i, cls, name, arguments, folder, outcome, problem):
        place = self.options.out / "findings" / f"{i:06}"
        if not place.exists():
            place.mkdir(parents=True)
            # cp keeps FIFOs and links as they are
            subprocess.run(["cp", "-a", folder, place / "files"], check=False, capture_output=True)
        record = {"directory": i, "class": cls, "command": name, "problem": problem, "code": outcome.code,
                  "seconds": round(outcome.seconds, 2), "megabytes": round(outcome.megabytes), "folder": str(folder),
                  "arguments": arguments, "stderr": outcome.stderr[:2000].decode("utf-8", "replace")}  # fmt: skip
        with open(place / "finding.jsonl", "a") as file:
            file.write(json.dumps(record) + "\n")


def flags_of(dmc):
    found = {}
    for name in ("run", "eval", "inspect", "plan"):
        text = subprocess.run([dmc, name, "--help"], capture_output=True, text=True).stdout
        words = set(re.findall(r"(?<![\w-])(--[a-z][a-z0-9-]+|-[a-z])(?=[, ])", text)) - {"--help", "-h", "--model", "-m"}
        found[name] = sorted(words)
    return found


def values_for_flags(attack):
    fixed = ["0", "-1", "1", "2", "16", "0.5", "1.5", "nan", "inf", "-inf", "1e309", "", " ", "x", "99999999999999999999",
             "1073741824", "1048576", "4294967296", "-9223372036854775809", "/dev/null", "/dev/zero", "/", ".", "nowhere",
             "int8", "int4", "fp8", "bf16", "f32", "dmc", "dms", "dense", "h2o", "tova", "window", "snapkv", "cpu", "cuda",
             "text", "piqa,mmlu", "humaneval", "24GiB", "-", "a\x1b[2Jb", "\u202e" * 50, "y" * 5000, "--", "--json"]  # fmt: skip
    return [*fixed, str(attack.text), str(attack.bases[0] / "config.json"), str(attack.bases[0])]


attack = None


def start_worker(options):
    global attack
    os.nice(options.nice)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    attack = options.attack


def one(i):
    return attack.directory(i)


# Reports -----------------------------------------------------------------------------------------


def table(results):
    rows = collections.defaultdict(collections.Counter)
    for cls, name, result, _, _, _ in results:
        for key in {*cls.split("+")}:
            rows[key]["attempts"] += 1
            rows[key][result if result in ("accepted", "refused") else "findings"] += 1
    lines = [f"{'class':<10} {'attempts':>9} {'accepted':>9} {'refused':>9} {'findings':>9}"]
    for key in sorted(rows):
        lines.append(f"{key:<10} " + " ".join(f"{rows[key][c]:>9}" for c in ("attempts", "accepted", "refused", "findings")))
    return lines


def summary(results, done, options, seconds):
    problems = collections.Counter(
        (result, name) for _, name, result, _, _, _ in results if result not in ("accepted", "refused")
    )
    return {
        "seed": options.seed, "directories": done, "attempts": len(results), "seconds": round(seconds, 1),
        "slowest_seconds": max((r[3] for r in results), default=0),
        "largest_megabytes": max((r[4] for r in results if r[1] != "convert"), default=0),
        "findings": [{"problem": p, "command": n, "count": c} for (p, n), c in problems.most_common()],
    }  # fmt: skip


def run(options):
    started, results, done = time.monotonic(), [], 0
    options.attack = Attack(options)
    try:
        with multiprocessing.Pool(options.jobs, start_worker, (options,)) as pool:
            for batch in pool.imap_unordered(one, range(options.first, options.first + options.directories)):
                results += batch
                done += 1
                if sys.stderr.isatty() and done % 20 == 0:
                    print(f"\r{done} directories, {len(results)} attempts", end="", file=sys.stderr)
                if time.monotonic() - started > options.seconds:
                    break
            pool.terminate()
    except KeyboardInterrupt:
        pass  # what was done is shown
    finally:
        shutil.rmtree(options.attack.work, ignore_errors=True)
    total = summary(results, done, options, time.monotonic() - started)
    if options.json:
        print(json.dumps(total | {"table": table(results)}))
    else:
        print("\n".join(table(results)))
        print(f"{done} directories, {len(results)} attempts in {total['seconds']:.0f} s; the slowest took "
              f"{total['slowest_seconds']:.1f} s, the largest {total['largest_megabytes']:.0f} MB")  # fmt: skip
        for finding in total["findings"]:
            print(f"FOUND {finding['count']:>5} x {finding['problem']} in {finding['command']}")
        if total["findings"]:
            print(f"each is kept in {options.out}/findings; --replay PATH runs one again")
    return 1 if total["findings"] else 0


def replay(options):
    code = 0
    for line in (options.replay / "finding.jsonl").read_text().splitlines():
        record = json.loads(line)
        files = str((options.replay / "files").resolve())
        arguments = [a.replace(record["folder"], files) for a in record["arguments"]]
        text = next((a for a in arguments if a.endswith("text.txt")), None)
        if text is not None:
            pathlib.Path(files, "text.txt").write_text(TEXT)
            arguments = [f"{files}/text.txt" if a == text else a for a in arguments]
        convert = record["command"] == "convert"
        limits = Limits(4 * options.time, options.memory + 1200) if convert else Limits(options.time, options.memory)
        with tempfile.TemporaryDirectory() as folder:
            outcome = execute([options.dmc, *arguments], limits, pathlib.Path(folder))
        problem = outcome.problem(limits, record["command"] in ("inspect", "plan", "convert"))
        code |= bool(problem)
        print(" ".join(arguments)[:400])
        print(f"  was: {record['problem']}; now: {problem or 'nothing'}, exit code {outcome.code}, "
              f"{outcome.seconds:.1f} s, {outcome.megabytes:.0f} MB")  # fmt: skip
        print("  " + repr(outcome.stderr[-600:].decode("utf-8", "replace")))
    return code


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dmc", default=str(ROOT / "build" / "bin" / "dmc"), help="the program")
    parser.add_argument("--directories", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--first", type=int, default=0, help="number of the first directory")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--nice", type=int, default=0)
    parser.add_argument("--time", type=float, default=10.0, help="processor seconds a command may take")
    parser.add_argument("--memory", type=int, default=500, help="megabytes that it may take")
    parser.add_argument("--convert", type=float, default=0.02, help="share of directories that convert reads, too")
    parser.add_argument("--flags", type=float, default=0.05, help="share of attempts with random flags instead")
    parser.add_argument("--classes", nargs="+", choices=list(mutations.CLASSES), help="only these damages")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build" / "attack", help="for findings")
    parser.add_argument("--work", default="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--replay", type=pathlib.Path)
    options = parser.parse_args()
    options.dmc, options.out = str(pathlib.Path(options.dmc).resolve()), options.out.resolve()
    return replay(options) if options.replay else run(options)


if __name__ == "__main__":
    sys.exit(main())
