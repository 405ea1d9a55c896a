"""Model files that were made to hang, exhaust or paint: one sentence each, soon and in little memory."""

import json
import os
import pathlib
import resource
import shutil
import struct
import subprocess
import sys
import tempfile

import pytest
from conftest import BIN

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "attack"))
import mutations  # noqa: E402
import tiny_models  # noqa: E402

DATA, USAGE = 3, 2
CHECK = ["inspect", "--check"]


@pytest.fixture
def tiny(tmp_path):
    tiny_models.write_llama(tmp_path / "model")
    return tmp_path / "model"


# Runs argv[2:] and writes its peak in KiB to argv[1]. A process of its own, for what is measured begins
# as a copy of who starts it, and this test's own process is large.
MEASURE = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    file.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code & 255)
"""


def limited(*arguments, seconds=10, megabytes=500, **options):
    """Runs dmc with limits on processor time and memory; gives the process and its peak in MB."""

    def limit():
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        resource.setrlimit(resource.RLIMIT_DATA, (4 * megabytes << 20,) * 2)

    with tempfile.NamedTemporaryFile("r") as peak:
        done = subprocess.run(
            [sys.executable, "-S", "-c", MEASURE, peak.name, BIN / "dmc", *map(str, arguments)],
            capture_output=True, preexec_fn=limit, **({"stdin": subprocess.DEVNULL} | options),
        )  # fmt: skip
        assert int(peak.read()) / 1024 < megabytes
    return subprocess.CompletedProcess(arguments, done.returncode, done.stdout, done.stderr.decode())


def refused(done, code, *parts):
    assert done.returncode == code, done.stderr
    sentences = [line for line in done.stderr.splitlines() if line.startswith("dmc: ")]
    assert len(sentences) == 1, done.stderr
    assert len(sentences[0]) < 1000
    assert not any(ord(c) < 32 for c in sentences[0]), sentences[0]
    for part in parts:
        assert str(part) in sentences[0], sentences[0]


def run_on(model):
    return ["run", "-m", model, "-p", "a", "-n", "1", "--threads", "1"]


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_tiny_models_are_whole(tmp_path):
    for model in tiny_models.write_all(tmp_path):
        path = model / "model.gguf" if model.name.startswith("gguf") else model
        assert limited("inspect", "--check", "--values", "-m", path).returncode == 0, model
        if not model.name.startswith("gguf_"):  # those have other vocabularies than their models
            assert limited(*run_on(path)).returncode == 0, model


def test_a_decoder_that_doubles_its_tokens(tiny):
    step = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    edit(tiny / "tokenizer.json", decoder={"type": "Sequence", "decoders": [step] * 60})
    refused(limited(*run_on(tiny)), DATA, "tokenizer.json", "too much work")


def test_token_ids_that_the_model_has_not(tiny):
    tokenizer = json.loads((tiny / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({"id": 512, "content": "<new>", "special": True})
    (tiny / "tokenizer.json").write_text(json.dumps(tokenizer))
    for command in (run_on(tiny), ["eval", "-m", tiny, "--data", tiny / "tokenizer_config.json", "--length", "8"]):
        refused(limited(*command), DATA, "tokenizer.json", "512", "0 to 511")
    tiny_models.add_texts(tiny, tiny_models.SEEDS / "tokenizer_json" / "byte_level.json")
    edit(tiny / "config.json", eos_token_id=512)
    shutil.copy(ROOT / "README.md", tiny.parent / "text.md")
    refused(limited("eval", "-m", tiny, "--data", tiny.parent / "text.md", "--length", "8"), DATA, "eos_token_id", "512")


@pytest.mark.parametrize("bad", [b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f"])
def test_weights_that_are_no_numbers(tiny, bad):
    path = tiny / "model.safetensors"
    header, data = mutations.split(path.read_bytes())
    begin = header["model.layers.1.mlp.up_proj.weight"]["data_offsets"][0]
    data[begin : begin + 4] = bad
    path.write_bytes(mutations.join(header, data))
    assert limited(*CHECK, "-m", tiny).returncode == 0  # reads headers alone
    refused(limited(*CHECK, "--values", "-m", tiny), DATA, "model.layers.1.mlp.up_proj.weight", "finite")
    done = limited(*run_on(tiny))
    if done.returncode != 0:
        refused(done, DATA, "not numbers")
    in_8_bits = tiny.parent / "int8"
    done = limited("convert", "-m", tiny, "-o", in_8_bits, "--weights", "int8", megabytes=1500)
    refused(done, DATA, "model.layers.1.mlp.up_proj.weight", "finite")
    assert not (in_8_bits / "model.safetensors").exists()


def test_sentences_cut_and_escape_what_files_say(tiny):
    hostile = "\x1b[2J\x1b]0;owned\x07" + "x" * 3000
    for changes in ({"hidden_act": hostile}, {"model_type": hostile}, {"architectures": [hostile]},
                    {"rope_scaling": {"type": hostile}}):  # fmt: skip
        kept = (tiny / "config.json").read_text()
        edit(tiny / "config.json", **changes)
        refused(limited(*CHECK, "-m", tiny), DATA, "config.json")
        (tiny / "config.json").write_text(kept)
    (tiny / "chat_template.jinja").write_text("{{ raise_exception('\x1b[2J' ~ 'x' * 3000) }}")
    refused(limited(*run_on(tiny), "--chat"), USAGE, "chat_template.jinja")
    header, data = mutations.split((tiny / "model.safetensors").read_bytes())
    header[hostile] = header.pop("model.norm.weight") | {"dtype": "F33"}
    (tiny / "model.safetensors").write_bytes(mutations.join(header, data))
    refused(limited(*CHECK, "-m", tiny), DATA, "model.safetensors", "\\x1b")


@pytest.mark.parametrize(
    "changes", [{"num_hidden_layers": 1_000_000}, {"num_hidden_layers": 10_000}, {"intermediate_size": 4_194_304},
                {"num_attention_heads": 2**24}, {"vocab_size": 2**24}, {"hidden_size": 2**24}])  # fmt: skip
def test_sizes_that_the_files_do_not_have(tiny, changes):
    edit(tiny / "config.json", **changes)
    for command in (CHECK + ["-m", tiny], run_on(tiny)):
        refused(limited(*command, seconds=2, megabytes=150), DATA)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "circle"])
def test_only_regular_files_are_opened(tiny, name, kind):
    path = tiny / name
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "circle":
        path.symlink_to(name)
    else:
        path.mkdir()
    found = {"fifo": "a FIFO", "device": "a device", "folder": "a folder", "circle": "symbolic links"}[kind]
    refused(limited(*run_on(tiny), "--chat"), DATA, name, found)


@pytest.mark.parametrize("command", [["inspect", "--check"], ["run", "-p", "a", "-n", "1"], ["plan", "--context", "16"]])
def test_files_that_wait_for_ever_are_not_read(tmp_path, command):
    """The kernel's log is a regular file, by what it says, that ends for nobody."""
    model = tmp_path / "model.gguf"
    model.symlink_to("/proc/kmsg")
    done = limited(*command, "-m", model, timeout=60)
    assert done.returncode in (USAGE, DATA)
    refused(done, done.returncode, "model.gguf")


def test_headers_of_many_tensors_are_read_soon(tiny):
    header, data = mutations.split((tiny / "model.safetensors").read_bytes())
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    many = header | {f"t{i}": empty for i in range(99_000)}
    (tiny / "model.safetensors").write_bytes(mutations.join(many, data))
    assert limited(*CHECK, "-m", tiny, seconds=3).returncode == 0


@pytest.mark.parametrize("entry", ['"t%07d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}', '"t%07d":0', "[[[[[[%d"])
def test_headers_at_the_formats_limit(tiny, entry):
    part = entry % 0
    text = ("{" + ",".join(entry % i for i in range(100_000_000 // (len(part) + 1)))).ljust(100_000_000)
    with open(tiny / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text.encode())
    refused(limited(*CHECK, "-m", tiny, seconds=4, megabytes=900), DATA, "model.safetensors")


def test_prompts_beyond_the_context_are_not_tokenized(tiny, tmp_path):
    (tmp_path / "long").write_bytes(b"a" * (16 << 20))
    refused(limited("run", "-m", tiny, "-f", tmp_path / "long", "-n", "1", megabytes=60), DATA, "16777216 bytes")
    with open("/dev/zero", "rb") as endless:
        done = limited("run", "-m", tiny, "-p", "-", "-n", "1", megabytes=60, seconds=3, stdin=endless)
    refused(done, USAGE, "4096 bytes", "context of 256")
    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": "a" * 5000}))
    refused(limited("run", "-m", tiny, "--prompts", tmp_path / "p.jsonl", "-n", "1"), USAGE, "4096 bytes")


def test_a_small_attack(tmp_path):
    """The whole of it: ./run test attack."""
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "attack" / "attack.py", "--dmc", BIN / "dmc", "--directories", "60",
         "--seed", "7", "--convert", "0", "--out", tmp_path],
        capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
