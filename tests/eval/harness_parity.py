#!/usr/bin/env python3
"""Compares `dmc eval` with lm-evaluation-harness on the same model and the same local files.

    pip install -r tools/requirements-harness.txt
    tests/eval/harness_parity.py --data-dir DIR [--model models/builtin] [--limit 50] [--tasks a,b]
    tests/eval/harness_parity.py --served --data-dir DIR ...   # the harness asks dmc serve instead
                                                               # (tools/requirements-clients.txt)

The harness's own task definitions are used, with nothing but the data's place replaced. Both must
agree on every metric to --tolerance.
"""

import argparse
import bz2
import contextlib
import csv
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("DMC_BIN", ROOT / "build" / "bin"))


def json_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def first_file(*paths):
    found = [path for path in paths if path.exists()]
    if not found:
        raise FileNotFoundError(f"none of {', '.join(map(str, paths))}")
    return found[0]


def piqa(data):
    labels = (data / "piqa/valid-labels.lst").read_text().split()
    docs = json_lines(data / "piqa/valid.jsonl")
    return {"validation": [doc | {"label": int(label)} for doc, label in zip(docs, labels)]}


def boolq(data):
    docs = json_lines(data / "boolq/dev.jsonl")
    truth = {"true": 1, "false": 0}
    return {
        "validation": [
            {"passage": d["passage"], "question": d["question"], "label": truth[str(d["answer"]).lower()]}
            for d in docs
        ]
    }  # fmt: skip


def instruction_form(doc, word):
    """Question, choices and gold index of LLM-Adapters' form."""
    head, choices, _ = re.fullmatch(
        rf"(.*?)\n(?={word}1: )(.*?)\s*(Answer format: .*)", doc["instruction"], re.DOTALL
    ).groups()
    question = head.split(": ", 1)[1].strip()
    texts = [text.strip() for text in re.split(rf"(?:^| ){word}\d: ", choices)[1:]]
    return question, texts, int(doc["answer"][-1]) - 1


def arc(folder, published):
    def convert(data):
        path = first_file(data / folder / published, data / folder / "test.json")
        docs = []
        if path.suffix == ".json":
            for doc in json.loads(path.read_text()):
                question, texts, gold = instruction_form(doc, "Answer")
                labels = list("ABCDEFGH"[: len(texts)])
                choices = {"text": texts, "label": labels}
                docs.append({"question": question, "choices": choices, "answerKey": labels[gold]})
        else:
            for doc in json_lines(path):
                choices = doc["question"]["choices"]
                choices = {key: [c[key] for c in choices] for key in ["text", "label"]}
                docs.append(
                    {"question": doc["question"]["stem"], "choices": choices, "answerKey": doc["answerKey"]}
                )  # fmt: skip
        return {"test": docs}

    return convert


def hellaswag(data):
    folder = data / "hellaswag"
    if (folder / "hellaswag_val.jsonl").exists():
        return {"validation": json_lines(folder / "hellaswag_val.jsonl")}
    lines = bz2.open(folder / "hellaswag_val_full.txt.bz2", "rt").read().splitlines()
    docs = []
    for at in range(0, len(lines) - 5, 6):
        label, context = lines[at].split(": ", 1)
        # The text form has lost the seam between ctx_a and ctx_b.
        seam = re.search(r"^(.*[.!?]) *([a-z].*?)$", context)
        ctx_a, ctx_b = seam.groups() if seam else (context, "")
        if seam and re.search(r"[.!?]", ctx_b):
            ctx_a, ctx_b = context, ""
        docs.append(
            {"activity_label": label, "ctx_a": ctx_a, "ctx_b": ctx_b,
             "endings": lines[at + 2 : at + 6], "label": lines[at + 1]}
        )  # fmt: skip
    return {"validation": docs}


def winogrande(data):
    path = first_file(data / "winogrande/dev.jsonl", data / "winogrande/test.json")
    if path.suffix == ".jsonl":
        return {"validation": json_lines(path)}
    docs = []
    for doc in json.loads(path.read_text()):
        question, texts, gold = instruction_form(doc, "Option")
        docs.append(
            {"sentence": question, "option1": texts[0], "option2": texts[1], "answer": str(gold + 1)}
        )
    return {"validation": docs}


def lambada(data):
    return {"test": json_lines(data / "lambada/lambada_test.jsonl")}


def mmlu(subject):
    def convert(data):
        splits = {}
        for split in ["dev", "test"]:
            with open(data / "mmlu" / split / f"{subject}_{split}.csv", newline="") as file:
                rows = [row for row in csv.reader(file) if row and row[-1] != "answer"]
            splits[split] = [
                {"question": row[0], "choices": row[1:5],
                 "answer": "ABCD".index(row[5]) if row[5] in "ABCD" else int(row[5])}
                for row in rows
            ]  # fmt: skip
        return splits

    return convert


# Our name: the harness's task, and its documents from the files we read, by split.
TASKS = {
    "piqa": ("piqa", piqa),
    "boolq": ("boolq", boolq),
    "arc_easy": ("arc_easy", arc("arc-easy", "ARC-Easy-Test.jsonl")),
    "arc_challenge": ("arc_challenge", arc("arc-challenge", "ARC-Challenge-Test.jsonl")),
    "hellaswag": ("hellaswag", hellaswag),
    "winogrande": ("winogrande", winogrande),
    "lambada": ("lambada_openai", lambada),
}


def local_task(name, harness_name, splits, folder, manager):
    """A task definition for the harness that includes its own and reads `splits` from `folder`."""
    import yaml

    files = {}
    for split, docs in splits.items():
        files[split] = str(folder / f"{name}_{split}.jsonl")
        pathlib.Path(files[split]).write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    definition = folder / f"{name}.yaml"
    kinds = {"training_split": "train", "validation_split": "validation", "test_split": "test"}
    absent = {kind: None for kind, split in kinds.items() if split not in splits}
    definition.write_text(
        yaml.safe_dump(
            {"include": str(manager.task_index[harness_name].yaml_path), "task": f"local_{name}",
             "dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
            | absent
        )
    )  # fmt: skip
    return str(definition)


def through_transformers(model):
    return {"model": "hf", "model_args": {"pretrained": str(model), "dtype": "float32"}, "device": "cpu"}


def through_server(url, name, context):
    """Of the harness's client local-completions."""
    return {
        "model": "local-completions",
        "model_args": {"model": name, "base_url": url + "/v1/completions", "num_concurrent": 4,
                       "max_length": context},
    }  # fmt: skip


@contextlib.contextmanager
def serving(model, options):
    """(URL, model's name, context) of a dmc serve of its own."""
    command = [BIN / "dmc", "serve", "-m", model, "--port", "0", "--no-page", *options]
    server = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
    try:
        log = ""
        while not (found := re.search(r"(\S+) \(.*context (\d+)\) at (http://[\d.:]+)", log)):
            line = server.stderr.readline()
            if not line:
                raise SystemExit(f"dmc serve did not start: {log}")
            log += line
        yield found[3], found[1], int(found[2])
    finally:
        server.terminate()
        server.communicate(timeout=60)


def harness_scores(backend, data, tasks, limit):
    """{our task name: (number of items, {metric: value})}; `backend` is what the harness asks."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        plain = [name for name in tasks if name != "mmlu"]
        specs = [local_task(n, TASKS[n][0], TASKS[n][1](data), folder, manager) for n in plain]
        subjects = sorted(p.name.removesuffix("_test.csv") for p in (data / "mmlu/test").glob("*_test.csv")) if "mmlu" in tasks else []  # fmt: skip
        shots = [
            local_task(f"mmlu_{s}", f"mmlu_{s}", mmlu(s)(data), folder, manager) for s in subjects
        ]
        settings = dict(
            **backend,
            batch_size=1,
            limit=limit,
            bootstrap_iters=0,
            task_manager=manager,
        )
        results, counts = {}, {}
        for few, chosen in [(0, specs), (5, shots)]:
            if chosen:
                done = lm_eval.simple_evaluate(tasks=chosen, num_fewshot=few, **settings)
                results |= done["results"]
                counts |= {name: n["effective"] for name, n in done["n-samples"].items()}

    def metrics(name):
        return {
            key.removesuffix(",none"): value
            for key, value in results[f"local_{name}"].items()
            if key.endswith(",none") and isinstance(value, float)
        }

    scores = {name: (counts[f"local_{name}"], metrics(name)) for name in plain}
    if subjects:
        n = [counts[f"local_mmlu_{s}"] for s in subjects]
        acc = [metrics(f"mmlu_{s}")["acc"] for s in subjects]
        scores["mmlu"] = sum(n), {"acc": sum(a * k for a, k in zip(acc, n)) / sum(n)}
    return scores


def dmc_scores(model, data, tasks, limit, options=("--policy", "dense")):
    """The same of `dmc eval`, by default with the cache uncompressed."""
    command = [BIN / "dmc", "eval", "-m", model, *options, "--json",
               "--tasks", ",".join(tasks), "--data-dir", data]  # fmt: skip
    if limit:
        command += ["--limit", limit]
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, check=True)
    return {entry["task"]: entry for entry in json.loads(done.stdout)["tasks"]}


def compare(theirs, ours, tasks, tolerance):
    """Prints both scores of every metric; returns the names of those that differ."""
    different = []
    for task in tasks:
        items, metrics = theirs[task]
        if items != ours[task]["items"]:
            different.append(f"{task}: {ours[task]['items']} items, the harness has {items}")
        for metric, value in metrics.items():
            mine = ours[task][metric]
            # Perplexities have no fixed scale.
            distance = abs(mine - value) / max(1.0, abs(value))
            print(f"{task:14} {metric:11} harness {value:12.5f}  dmc {mine:12.5f}  items {items}")
            if distance > tolerance:
                different.append(f"{task} {metric}: harness {value}, dmc {mine}")
    return different


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", type=pathlib.Path, default=ROOT / "models" / "builtin")
    parser.add_argument("--data-dir", type=pathlib.Path, required=True)
    parser.add_argument("--tasks", default=",".join([*TASKS, "mmlu"]))
    parser.add_argument("--limit", type=int, default=50)
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--served", action="store_true", help="the harness asks dmc serve by HTTP")
    parser.add_argument("--options", default="--policy dense", help="of dmc eval and dmc serve")
    options = parser.parse_args()
    tasks, limits = options.tasks.split(","), (options.data_dir, options.tasks.split(","), options.limit)
    ours = dmc_scores(options.model, *limits, shlex.split(options.options))
    if options.served:
        with serving(options.model, shlex.split(options.options)) as where:
            theirs = harness_scores(through_server(*where), *limits)
    else:
        theirs = harness_scores(through_transformers(options.model), *limits)
    different = compare(theirs, ours, tasks, options.tolerance)
    print("\n".join(different) if different else "all agree")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
