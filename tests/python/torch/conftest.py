"""dmc.torch as it lies in the source tree, with the operators that were built (DMC_BIN)."""

import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[3]
BIN = pathlib.Path(os.environ.get("DMC_BIN", ROOT / "build" / "bin"))

# Tensors are tiny; threads would only wait for one another.
os.environ["OMP_NUM_THREADS"] = "1"

sys.path.insert(0, str(ROOT / "python"))
os.environ.setdefault("DMC_TORCH_OPS", str(BIN / "dmc_torch_ops.so"))
# For the processes that tests start:
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "python"), os.environ.get("PYTHONPATH", "")])

import torch  # noqa: E402

torch.set_num_threads(1)
