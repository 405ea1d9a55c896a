"""dmc and dmc-train: one command for the user, of which only the second loads LibTorch."""

import shutil
import subprocess

import pytest
from conftest import BIN
from test_cli import DENSE, USAGE, refused

TRAINING = ["retrofit", "train", "convert", "demo"]


@pytest.fixture
def elsewhere(tmp_path):
    """A copy of dmc alone, in a folder bin, and what runs it."""
    (tmp_path / "bin").mkdir()
    shutil.copy(BIN / "dmc", tmp_path / "bin" / "dmc")

    def run(*arguments):
        words = [tmp_path / "bin" / "dmc", *map(str, arguments)]
        return subprocess.run(words, capture_output=True, text=True)

    return run


def libraries(program):
    return subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout


def test_only_the_training_program_loads_libtorch():
    assert "libtorch" not in libraries(BIN / "dmc")
    assert "libtorch" in libraries(BIN / "dmc-train")


@pytest.mark.parametrize("command", TRAINING)
def test_without_the_training_program_its_commands_say_so(elsewhere, command):
    for arguments in [(), ("--help",), ("-m", DENSE)]:
        refused(elsewhere(command, *arguments), USAGE, command, "built without LibTorch")


def test_an_installed_training_program_is_found(elsewhere, tmp_path):
    program = tmp_path / "libexec" / "dmc" / "dmc-train"
    program.parent.mkdir(parents=True)
    program.symlink_to(BIN / "dmc-train")
    assert "--save-at-cr" in elsewhere("retrofit", "--help").stdout
    refused(elsewhere("convert", "--kv-head", "3", "-m", DENSE), USAGE, "--kv-heads")


def test_every_word_reaches_the_training_program(dmc, tmp_path):
    # words that mean something to dmc itself, before and after
    refused(dmc("convert", "-m", "run", "-o", tmp_path / "out"), USAGE, "run")
    refused(dmc("convert", "run", "--version"), USAGE, "run")
    refused(dmc("convert", "--out=a b", "-m", "no model", "--", "more"), USAGE, "more")
