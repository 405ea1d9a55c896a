"""What people get wrong, and the one sentence that each mistake is met with.

In commands, {dense} and {dmc4x} are the built-in models, {text} is a file of text, {tmp} a folder of the
test's own with: empty/ (nothing), full/ (a file), latin1.txt, bad.jsonl, model/ (a model whose
config.json says nothing of an end-of-text token), only-config/ (a config.json alone)."""

import json
import pathlib
import shutil

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DENSE = ROOT / "models" / "builtin"
DMC_4X = ROOT / "models" / "builtin-4x"

USAGE, DATA = 2, 3
TRAIN = "-m {dense} -o {tmp}/o --data {text} --steps 1"
RETROFIT = "retrofit -m {dense} -o {tmp}/o --data {text}"

# Command line, exit code, what its sentence says.
MISTAKES = [
    # Flags of other programs, and typing errors.
    ("run -p x --ctx 4096", USAGE, ["no --ctx here", "the model's context"]),
    ("run -p x --promt y", USAGE, ["did you mean --prompt?"]),
    ("chat -m {dense}", USAGE, ['"chat"']),
    ("evall", USAGE, ["did you mean eval?"]),
    ("run {dense} -p x", USAGE, ["a model is given as -m"]),
    ("train " + TRAIN + " --epochs 3", USAGE, ["no --epochs here", "--steps"]),
    ("train " + TRAIN + " --output x", USAGE, ["--out"]),
    (RETROFIT + " --ratio 4", USAGE, ["--cr"]),
    ("run -p x --quantize int8", USAGE, ["--weights int8", "--kv int8"]),
    ("run -p x --gpu", USAGE, ["--device cuda"]),
    # Numbers out of range, without walls of digits.
    ("run -p x -n many", USAGE, ["--tokens", "many"]),
    ("run -p x -n 0", USAGE, ["--tokens", "0"]),
    ("run -p x --temperature -1", USAGE, ["--temperature"]),
    ("run -p x --eos-token-id 2048", USAGE, ["--eos-token-id", "0 to 2047", "2048"]),
    (RETROFIT + " --eos-token-id 99999", USAGE, ["--eos-token-id", "0 to 2047", "99999"]),
    ("train " + TRAIN + " --eos-token-id 99999", USAGE, ["--eos-token-id", "0 to 2047", "99999"]),
    ("run -p x --top-p 1.5", USAGE, ["--top-p"]),
    ("run -p x --min-p 2", USAGE, ["--min-p"]),
    ("train " + TRAIN + " --lr 0", USAGE, ["--lr", "above 0", "found 0"]),
    ("train " + TRAIN + " --weight-decay -1", USAGE, ["--weight-decay", "from 0", "found -1"]),
    ("train " + TRAIN + " --clip x", USAGE, ["--clip", "found x"]),
    (RETROFIT + " --cr 0.5", USAGE, ["--cr", "0.5"]),
    ("eval -m {dense} --length 4096", USAGE, ["--length", "2048"]),
    ("plan -m llama-3-8b --context 100000", USAGE, ["--context", "100000", "8192"]),
    ("plan -m llama-3-8b --memory 24", USAGE, ["--memory", "24GiB"]),
    # Models.
    ("run -m {tmp}/none -p x", USAGE, ["{tmp}/none"]),
    ("run -m {tmp}/empty -p x", DATA, ["{tmp}/empty", "config.json"]),
    ("run -m {tmp}/only-config -p x", DATA, ["{tmp}/only-config"]),
    ("plan -m llama-9", USAGE, ["llama-9", "qwen3-8b"]),
    ("eval -m {tmp}/model --data {text} --length 64", DATA, ["eos_token_id"]),
    # Policies.
    ("run -m {dense} -p x --policy dmc", USAGE, ["--policy", "dmc retrofit"]),
    ("run -m {dense} -p x --policy h3o", USAGE, ["--policy", "h2o"]),
    ("run -m {dense} -p x --policy tova", USAGE, ["--policy", "budget", "cr"]),
    ("run -m {dense} -p x --cr 4", USAGE, ["--cr", "dense"]),
    ("run -m {dmc4x} -p x --policy dms", USAGE, ["retrofitted for dmc"]),
    ("run -m {dense} -p x --policy window --budget 8 --cr 2", USAGE, ["--budget", "cr"]),
    # Text.
    ("run -m {dense}", USAGE, ["-p TEXT", "-f FILE"]),
    ("run -p x --prompts {tmp}/bad.jsonl", USAGE, ["--prompts", "one of them"]),
    ("run --prompts {tmp}/bad.jsonl", DATA, ["bad.jsonl, line 1", '"prompt"']),
    ("run -p x --repetition-penalty 0", USAGE, ["--repetition-penalty"]),
    ("run -f {tmp}/none.txt", DATA, ["none.txt"]),
    ("eval --data {tmp}/none", DATA, ["{tmp}/none", "no such file"]),
    ("eval --data {tmp}/empty", DATA, ["{tmp}/empty", "no text found", ".jsonl"]),
    ("eval --data {tmp}/latin1.txt", DATA, ["latin1.txt", "UTF-8"]),
    ("eval --data {tmp}/bad.jsonl", DATA, ["bad.jsonl, line 2", '"text"']),
    ("eval --tasks piqa --data-dir {tmp}", USAGE, ["piqa"]),
    ("eval --tasks humaneval", USAGE, ["--allow-code"]),
    # Training: where it writes, and what cannot be trained.
    ("train -m {dense} -o {tmp}/full --data {text}", USAGE, ["--out", "not empty", "--overwrite"]),
    ("train -m {tmp}/model -o {tmp}/model --data {text}", USAGE, ["--out", "model's own folder"]),
    ("train -m {dense} -o {tmp}/full/notes.txt --data {text}", USAGE, ["--out", "is a file"]),
    ("train " + TRAIN + " --resume", USAGE, ["--resume", "no checkpoint"]),
    ("train " + TRAIN + " --batch 4 --accumulate 3", USAGE, ["--batch", "3 parts"]),
    (RETROFIT + " --method dms --delay 60 --length 64", USAGE, ["--delay", "cannot be reached"]),
    (RETROFIT + " --save-at-cr 8", USAGE, ["--save-at-cr", "8.00"]),
    (RETROFIT + " --distill-weight 0.5", USAGE, ["--distill forward"]),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "empty").mkdir()
    (folder / "full").mkdir()
    (folder / "full" / "notes.txt").write_text("mine")
    (folder / "latin1.txt").write_bytes("café".encode("latin1"))
    (folder / "bad.jsonl").write_text('{"text": "fine"}\n{"content": "not"}\n')
    (folder / "text.txt").write_text("def f(x):\n    return x\n" * 200)
    shutil.copytree(DENSE, folder / "model")
    config = json.loads((DENSE / "config.json").read_text())
    (folder / "only-config").mkdir()
    (folder / "only-config" / "config.json").write_text(json.dumps(config))
    del config["eos_token_id"]
    (folder / "model" / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("command, code, parts", MISTAKES, ids=[m[0] for m in MISTAKES])
def test_mistake(command, code, parts, folder, dmc):
    names = {"dense": DENSE, "dmc4x": DMC_4X, "tmp": folder, "text": folder / "text.txt"}
    done = dmc(*(word.format(**names) for word in command.split()))
    assert done.returncode == code, done.stderr
    sentences = [line for line in done.stderr.splitlines() if line.startswith("dmc: ")]
    assert len(sentences) == 1, done.stderr
    assert len(sentences[0]) < 700, "a sentence, not a wall"
    for part in parts:
        assert part.format(**names) in sentences[0], sentences[0]
    assert not (folder / "o" / "model.safetensors").exists()
    assert (folder / "full" / "notes.txt").read_text() == "mine"


def test_names_that_other_programs_use_work_as_well(dmc):
    usual = dmc("run", "-p", "def ", "-n", 5, "--temperature", 0)
    other = dmc("run", "-p", "def ", "--max-tokens", 5, "--temp", 0)
    assert usual.returncode == other.returncode == 0, other.stderr
    assert usual.stdout == other.stdout


def test_many_prompts_are_answered_as_each_alone(dmc, tmp_path):
    prompts = ["def read(path):", "import os\n", "class Parser:\n    def __init__(self"]
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join([json.dumps({"prompt": p}) for p in prompts[:2]] + [json.dumps(prompts[2])]))
    done = dmc("run", "--prompts", file, "-n", 12, "--temperature", 0)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [a["prompt"] for a in answers] == prompts
    for answer in answers:
        alone = json.loads(dmc("run", "-p", answer["prompt"], "-n", 12, "--temperature", 0, "--json").stdout)
        assert alone["text"] == answer["text"]
        assert answer["finish_reason"] in ("stop", "length") and answer["tokens"] <= 12


def test_texts_end_at_stop_strings_and_heed_penalties(dmc):
    usual = dmc("run", "-p", "import os\n", "-n", 30, "--temperature", 0)
    text = usual.stdout.removeprefix("import os\n")
    stop = text[5:8]
    stopped = dmc("run", "-p", "import os\n", "-n", 30, "--temperature", 0, "--stop", stop)
    assert stopped.stdout.rstrip("\n") == ("import os\n" + text[: text.index(stop)]).rstrip("\n")
    other = dmc("run", "-p", "import os\n", "-n", 30, "--temperature", 0, "--frequency-penalty", 2)
    assert other.returncode == 0 and other.stdout != usual.stdout


def test_a_prompt_that_is_not_utf8_is_read_with_a_warning(dmc, folder):
    done = dmc("run", "-f", folder / "latin1.txt", "-n", 1, errors="replace")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("warning: the prompt is not valid UTF-8")


def test_the_end_of_text_can_be_named(dmc, folder):
    done = dmc("eval", "-m", folder / "model", "--data", folder / "text.txt", "--length", 64,
               "--windows", 1, "--eos-token-id", 0, "--json")
    assert done.returncode == 0, done.stderr


def test_help_lists_each_policy_once_in_a_line(dmc):
    for command in ("run", "eval", "inspect"):
        lines = dmc(command, "--help").stdout.splitlines()
        start = lines.index("Policies:") + 1
        for policy in ("dense", "dmc", "dms", "window", "tova", "h2o", "snapkv", "forced"):
            listed = lines[start : start + 12]
            found = [line for line in listed if line.startswith(f"  {policy} " + " " * (8 - len(policy)))]
            assert len(found) == 1 and len(found[0]) <= 100, found
