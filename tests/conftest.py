"""Fixtures of the Python tests. DMC_BIN names the folder of the built programs."""

import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = pathlib.Path(os.environ.get("DMC_BIN", ROOT / "build" / "bin"))


@pytest.fixture
def run_probe():
    """Runs parity_probe MODEL_DIR INPUT OUTPUT_DIR and fails with its message."""

    def run(*arguments):
        done = subprocess.run(
            [BIN / "parity_probe", *map(str, arguments)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    return run


@pytest.fixture
def dmc():
    """Runs `dmc ARGS...` and returns the finished process, output captured as text."""

    def run(*arguments, **options):
        return subprocess.run(
            [BIN / "dmc", *map(str, arguments)], capture_output=True, text=True, **options
        )

    return run
