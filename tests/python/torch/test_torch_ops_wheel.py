"""The wheel of the operators: what pip would put beside dmc.torch is found there, and loads."""

import base64
import csv
import hashlib
import io
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
OPS = pathlib.Path(os.environ["DMC_TORCH_OPS"])

PROGRAM = """
import torch
from dmc.torch import compose, ops
assert ops.HAS_KERNELS
k, v, a, b = (torch.rand(2, 9, 2, 4), torch.rand(2, 9, 2, 4), torch.rand(2, 9, 2), torch.rand(2, 9, 2))
for mine, theirs in zip(ops.pool(k, v, a, b, 3), compose.pool(k, v, a, b, 3, False)):
    torch.testing.assert_close(mine, theirs)
"""


@pytest.fixture
def wheel(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "torch_ops_wheel.py", OPS, tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    return pathlib.Path(done.stdout.strip())


def test_is_a_wheel(wheel, tmp_path):
    again = subprocess.run(
        [sys.executable, ROOT / "tools" / "torch_ops_wheel.py", OPS, tmp_path / "again"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert pathlib.Path(again.stdout.strip()).read_bytes() == wheel.read_bytes()
    with zipfile.ZipFile(wheel) as files:
        (record,) = (name for name in files.namelist() if name.endswith("/RECORD"))
        listed = list(csv.reader(io.StringIO(files.read(record).decode())))
        assert sorted(row[0] for row in listed) == sorted(files.namelist())
        for name, digest, size in listed:
            content = files.read(name)
            if name != record:
                expected = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
                assert (digest, int(size)) == ("sha256=" + expected.decode(), len(content))


def test_is_found_beside_the_package(wheel, tmp_path):
    site = tmp_path / "site"
    shutil.copytree(ROOT / "python" / "dmc", site / "dmc")
    with zipfile.ZipFile(wheel) as files:
        files.extractall(site)
    environment = {k: v for k, v in os.environ.items() if k != "DMC_TORCH_OPS"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(site)},
    )
    assert done.returncode == 0, done.stderr
