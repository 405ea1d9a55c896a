"""dmc.torch as it lies in the source tree, with the operators that were built (DMC_BIN)."""

import os
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
BIN = pathlib.Path(os.environ.get("DMC_BIN", ROOT / "build" / "bin"))

sys.path.append(str(ROOT / "python"))
os.environ.setdefault("DMC_TORCH_OPS", str(BIN / "dmc_torch_ops.so"))


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    """Tensors are tiny; threads would only wait for one another."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
