#!/usr/bin/env python3
"""How fast dmc is against llama.cpp and transformers: same model, same cores, taking turns.

Everything needed is fetched, built and written once into --work; later runs only measure. One table
is printed for each precision of the weights: medians of all rounds, and in brackets the ratio to the
best of llama.cpp's settings at that point. The attention operator is also measured alone.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import tables
from llama_cpp import LlamaCpp, build_attention_op, default_jobs
from process import PeerError, run_measured
from programs import Point, Run, Transformers, dmc_has, dmc_settings, llama_settings
from random_model import RandomModel, Shape

ROOT = pathlib.Path(__file__).resolve().parents[2]
PARTS = ("attention", "decode", "prefill")
WEIGHTS = ("f16", "bf16", "int8")
OURS = (
    "{root}/build/bin/dmc bench -m {{model}} --contexts {{tokens}} --batch 1 --decode {{steps}} "
    "--repeats {{repeats}} --threads {{threads}} --json"
).format(root=ROOT)
BUSY = 0.05  # share of the cores that others may use before figures are called unreliable


def say(text):
    print(f"peers: {text}", file=sys.stderr, flush=True)


def numbers(kind, least):
    def parse(text):
        try:
            values = [kind(part) for part in text.split(",")]
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers") from None
        if min(values) < least:
            raise argparse.ArgumentTypeError(f"{text!r} has a number below {least}")
        return values

    return parse


def names(allowed):
    def parse(text):
        values = text.split(",")
        for value in values:
            if value not in allowed:
                raise argparse.ArgumentTypeError(f"{value!r} is not one of {', '.join(allowed)}")
        return values

    return parse


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", type=names(PARTS), default=list(PARTS), help="of " + ",".join(PARTS))
    add("--quick", action="store_true", help="2 layers, short contexts, 2 rounds: minutes")
    add("--rounds", type=int, help="times everything is measured (default: 5)")
    add("--depths", type=numbers(int, 0), help="tokens in the cache (0,4096,16384,32768)")
    add("--prompts", type=numbers(int, 1), help="tokens of prefill (512,4096)")
    add("--steps", type=int, default=32, help="decode steps to time")
    add("--weights", type=names(WEIGHTS), help=f"of {','.join(WEIGHTS)} (f16,int8)")
    add("--cr", type=numbers(float, 1), default=[1.0, 4.0], help="our compression ratios (1,4)")
    add("--threads", type=int, default=os.cpu_count(), help="cores to use (all)")
    add("--ours", default=OURS, metavar="TEMPLATE", help=f"our command line ({OURS})")
    add("--transformers", metavar="PYTHON", help="measure transformers too, with this Python")
    add("--work", type=pathlib.Path, default=ROOT / "build" / "peers", help="folder of all files")
    add("--jobs", type=int, default=default_jobs(), help="compilers at a time")
    add("--prepare", action="store_true", help="fetch, build and write what is needed, then stop")
    add("--json", type=pathlib.Path, metavar="FILE", help="write all rounds and medians there")
    for field, value in Shape().__dict__.items():
        flag = field.replace("_", "-")
        add(f"--{flag}", type=int, help=f"shape of the model ({value})")
    arguments = parser.parse_args()
    arguments.work = arguments.work.resolve()
    return arguments


def with_defaults(arguments):
    """What --quick and the full run differ in, where the user did not say."""
    quick = arguments.quick
    defaults = {
        "rounds": 2 if quick else 5,
        "depths": [0, 4096] if quick else [0, 4096, 16384, 32768],
        "prompts": [512] if quick else [512, 4096],
        "weights": ["f16"] if quick else ["f16", "int8"],
        "layers": 2 if quick else Shape.layers,
    }
    for key, value in defaults.items():
        if getattr(arguments, key) is None:
            setattr(arguments, key, value)
    return arguments


def shape_of(arguments):
    fields = {key: getattr(arguments, key) for key in Shape().__dict__}
    shape = Shape(**{key: value for key, value in fields.items() if value is not None})
    if shape.heads < 1 or shape.hidden % (2 * shape.heads) or shape.heads % shape.kv_heads:
        raise PeerError("--hidden must be an even multiple of --heads, and that one of --kv-heads")
    if shape.hidden % 32 or shape.ff % 32:
        raise PeerError("--hidden and --ff must be multiples of 32, the block of GGUF's q8_0")
    return shape


def points(arguments):
    if "decode" in arguments.only:
        yield from (Point("decode", depth) for depth in arguments.depths)
    if "prefill" in arguments.only:
        yield from (Point("prefill", tokens) for tokens in arguments.prompts)


def warn_once():
    seen = set()

    def warn(text):
        if text not in seen:
            say(text)
        seen.add(text)

    return warn


def programs(arguments, llama):
    """Per precision of the weights, everything that is compared; writes the model files."""
    model = RandomModel(shape_of(arguments), arguments.work / "models", say)
    folder, warn = model.hugging_face(), warn_once()
    flags = dmc_has(arguments.ours, folder)
    groups = {}
    for weights in arguments.weights:
        group = llama_settings(llama.bench, model.gguf(weights))
        group += dmc_settings(arguments.ours, folder, weights, arguments.cr, flags, warn)
        # Once: it has no 8-bit weights, and its f16 is slow on most processors.
        if arguments.transformers and weights == arguments.weights[0]:
            group += [Transformers(arguments.transformers, folder, name) for name in ("bf16", "f32")]
        groups[weights] = group
    return groups


def measure_group(weights, group, todo, arguments, rows):
    """Adds to `rows` {program, peer, metric, tokens, rates}; programs take turns in each round."""
    run = Run(arguments.steps, arguments.threads)
    for point in todo:
        results = [new_row(weights, program, point) for program in group]
        rows += results
        for round_ in range(arguments.rounds):
            for program, row in zip(group, results):
                measure_once(program, point, run, row, f"round {round_ + 1}/{arguments.rounds}")


def new_row(weights, program, point):
    return {
        "program": program.name,
        "peer": program.peer,
        "weights": weights,
        "metric": point.metric,
        "tokens": point.tokens,
        "rates": [],  # tokens a second, by round
        "busy_elsewhere": [],  # share of the cores, by round
    }


def measure_once(program, point, run, row, label):
    where = f"{point.metric} {point.tokens}, {label}, {row['weights']} weights: {program.name}"
    if row.get("error"):
        return
    try:
        rate, others = program.rate(point, run)
    except PeerError as error:  # the others go on
        row["error"] = str(error)
        say(f"{where}: {error}")
        return
    row["rates"].append(rate)
    row["busy_elsewhere"].append(others)
    say(f"{where}: {rate:.1f} tok/s")


def measure_attention(program, arguments):
    rounds = ["--rounds", str(arguments.rounds), "--threads", str(arguments.threads)]
    slots = ["--slots", "4096"] if arguments.quick else []
    say("attention alone")
    text, others = run_measured([str(program), *rounds, *slots])
    return json.loads(text) | {"busy_elsewhere": others}


def print_busy(shares):
    if shares and max(shares) > BUSY:
        print(
            f"\nNot a quiet machine: other programs used {statistics.median(shares):.0%} of the "
            f"cores (median; at worst {max(shares):.0%}) while this was measured."
        )


def measure_all(arguments, operator, groups, todo, report):
    """Prints each table when its measurements are done or interrupted."""
    if operator:
        report["attention"] = measure_attention(operator, arguments)
        tables.print_attention(report["attention"])
    for weights, group in groups.items():
        rows = []
        try:
            measure_group(weights, group, todo, arguments, rows)
        finally:
            report["end_to_end"] += rows
            tables.print_end_to_end(weights, rows)


def busy_shares(report):
    if "attention" in report:
        yield report["attention"]["busy_elsewhere"]
    for row in report["end_to_end"]:
        yield from row["busy_elsewhere"]


def compare(arguments):
    todo = list(points(arguments))
    llama = LlamaCpp(arguments.work, arguments.jobs)
    llama.ensure(say)
    operator = None
    if "attention" in arguments.only:
        operator = build_attention_op(llama, ROOT, say)
    groups = programs(arguments, llama) if todo else {}
    if arguments.prepare:
        say(f"all is ready in {arguments.work}")
        return
    shape = shape_of(arguments).__dict__
    report = {"threads": arguments.threads, "shape": shape, "end_to_end": []}
    try:
        measure_all(arguments, operator, groups, todo, report)
    finally:
        print_busy(list(busy_shares(report)))
        if arguments.json:
            arguments.json.write_text(json.dumps(report, indent=1) + "\n")


def main():
    try:
        compare(with_defaults(parse_arguments()))
    except (PeerError, OSError) as error:
        sys.exit(f"peers: {error}")
    except KeyboardInterrupt:
        sys.exit("peers: stopped")


if __name__ == "__main__":
    main()
