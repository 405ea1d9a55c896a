"""`dmc run --chat`: the replies are those to the prompts that the template writes."""

import json
import pathlib
import shutil

import jinja2
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "builtin-4x"
TEMPLATE = (
    "{% for m in messages %}# {{ m.role }}\n{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}# assistant\n{% endif %}"
)


@pytest.fixture
def model(tmp_path):
    folder = shutil.copytree(MODEL, tmp_path / "model")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def prompt_of(messages):
    return jinja2.Environment(keep_trailing_newline=True).from_string(TEMPLATE).render(
        messages=messages, add_generation_prompt=True
    )  # fmt: skip


def say(role, text):
    return {"role": role, "content": text}


def answers(done):
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


OPTIONS = ["-n", 24, "--temperature", 0]


@pytest.mark.parametrize("policy", ["dmc", "dense"])
def test_each_turn_takes_in_only_what_is_new(policy, model, dmc):
    more = [*OPTIONS, "--policy", policy, "--json"]
    lines = ["import os", "def read(path):", "", "class Reader:"]
    command = ["run", "-m", model, "--chat", "--system", "code", *more]
    turns = answers(dmc(*command, input="\n".join(lines)))
    assert len(turns) == 3, "an empty line is no message"
    messages, held = [say("system", "code")], 0
    for line, turn in zip(filter(None, lines), turns):
        messages.append(say("user", line))
        (alone,) = answers(dmc("run", "-m", model, "-p", prompt_of(messages), *more))
        assert turn["kept_tokens"] + turn["prompt_tokens"] == alone["prompt_tokens"]
        if policy == "dense":  # a prompt taken in at once is rounded in another way than in parts
            assert turn["token_ids"] == alone["token_ids"]
        assert turn["kept_tokens"] >= held
        held = turn["kept_tokens"] + turn["prompt_tokens"]
        messages.append(say("assistant", turn["text"]))
    assert turns[1]["kept_tokens"] > 0 and turns[2]["kept_tokens"] > turns[1]["kept_tokens"]


def test_one_message(model, dmc):
    done = dmc("run", "-m", model, "--chat", "-p", "import os", *OPTIONS)
    assert done.returncode == 0, done.stderr
    alone = dmc("run", "-m", model, "-p", prompt_of([say("user", "import os")]), *OPTIONS, "--json")
    assert done.stdout == json.loads(alone.stdout)["text"] + "\n"
    assert "0 kept from earlier turns" in done.stderr and "CR" in done.stderr


def test_what_cannot_be(model, dmc):
    for arguments, named in [
        (["-m", MODEL, "--chat", "-p", "x"], "has no chat template"),
        (["-m", model, "--system", "x", "-p", "x"], "--system"),
        (["-m", model, "--chat", "-p", "word " * 3000], "context is 2048"),
    ]:
        done = dmc("run", *arguments)
        assert done.returncode == 2 and named in done.stderr, done.stderr
