"""The programs that are compared. Each answers one question: tokens a second at a Point."""

import dataclasses
import json
import pathlib
import shlex
import statistics
import subprocess

from process import PeerError, run_measured

HERE = pathlib.Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Point:
    metric: str  # "decode": `tokens` are in the cache; "prefill": `tokens` are taken in
    tokens: int

    @property
    def repeats(self):
        """Within one call. Filling a long cache takes minutes; rounds repeat that often enough."""
        return 3 if self.tokens <= 4096 else 1


@dataclasses.dataclass(frozen=True)
class Run:
    steps: int  # decode steps that are timed
    threads: int


def words(template, **values):
    """The command line `template` with its {fields} filled in."""
    try:
        return shlex.split(template.format(**values))
    except (KeyError, IndexError, ValueError):
        fields = ", ".join("{" + key + "}" for key in values)
        raise PeerError(f"--ours: {template!r} is no command line with {fields} in it") from None


def json_of(text, program):
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise PeerError(f"{program} did not print JSON") from None


class LlamaBench:
    """llama-bench with one of its settings."""

    peer = True

    def __init__(self, bench, model, kv, flash):
        self.bench, self.model, self.kv, self.flash = bench, model, kv, flash
        self.name = f"llama.cpp -fa {flash:d}, KV {kv}"

    def rate(self, point, run):
        command = [self.bench, "-m", self.model, "-o", "json", "-t", run.threads]
        command += ["-fa", f"{self.flash:d}", "-ctk", self.kv, "-ctv", self.kv, "-r", point.repeats]
        if point.metric == "decode":
            command += ["-p", 0, "-n", run.steps, "-d", point.tokens]
        else:
            command += ["-p", point.tokens, "-n", 0]
        text, others = run_measured([str(part) for part in command])
        (result,) = json_of(text, "llama-bench")
        return statistics.median(result["samples_ts"]), others


def llama_settings(bench, model):
    # llama.cpp refuses an 8-bit V cache without flash attention.
    settings = [("f16", False), ("f16", True), ("q8_0", True)]
    return [LlamaBench(bench, model, kv, flash) for kv, flash in settings]


class Dmc:
    """Our program; `template` is its command line, to which `flags` are added."""

    peer = False

    def __init__(self, template, model, name, flags):
        self.template, self.model, self.name, self.flags = template, model, name, flags

    def rate(self, point, run):
        command = words(
            self.template,
            model=shlex.quote(str(self.model)),
            tokens=max(1, point.tokens),  # the cache cannot be empty, one token is as good
            steps=run.steps if point.metric == "decode" else 1,
            repeats=point.repeats,
            threads=run.threads,
        )
        text, others = run_measured(command + self.flags)
        results = json_of(text, "dmc bench").get("results")
        if not results:
            raise PeerError("dmc bench printed no results")
        # Dense comes first; the last is what the flags asked for.
        return results[-1][f"{point.metric}_tokens_per_second"], others


def dmc_has(template, model):
    """The optional flags of `dmc bench` that this build of it knows."""
    model = shlex.quote(str(model))
    command = words(template, model=model, tokens=1, steps=1, repeats=1, threads=1)
    try:
        help_text = subprocess.run(
            [*command, "--help"], capture_output=True, text=True, stdin=subprocess.DEVNULL
        ).stdout
    except FileNotFoundError:
        raise PeerError(
            f"there is no program {command[0]}; build it with ./run build or name it with --ours"
        ) from None
    return {flag for flag in ("--weights", "--kv", "--force-cr") if flag in help_text}


def dmc_settings(template, model, weights, ratios, flags, warn):
    """Our settings to set against llama.cpp's with weights of this precision."""
    for flag in sorted({"--weights", "--kv", "--force-cr"} - flags):
        warn(f"this dmc has no {flag}: measured without")
    common = ["--weights", weights] if "--weights" in flags else []
    note = "" if common else ", f32 weights"
    settings = []
    for kv in ("f16", "int8") if "--kv" in flags else ("f32",):
        for ratio in ratios if "--force-cr" in flags else (1,):
            extra = ["--kv", kv] if "--kv" in flags else []
            extra += ["--force-cr", f"{ratio:g}"] if ratio != 1 else []
            name = f"dmc CR {ratio:g}, KV {kv}{note}"
            settings.append(Dmc(template, model, name, common + extra))
    return settings


class Transformers:
    """Hugging Face transformers, run by a Python that has it and torch."""

    peer = False

    def __init__(self, python, model, precision):
        self.python, self.model, self.precision = python, model, precision
        self.name = f"transformers, {precision}"

    def rate(self, point, run):
        command = [self.python, HERE / "transformers_bench.py", self.model]
        command += ["--metric", point.metric, "--tokens", point.tokens, "--steps", run.steps]
        command += ["--repeats", 1, "--threads", run.threads, "--weights", self.precision]
        text, others = run_measured([str(part) for part in command])
        return json_of(text, "transformers_bench.py")["tokens_per_second"], others
