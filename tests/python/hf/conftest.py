"""dmc.hf as it lies in the source tree."""

import os
import pathlib
import sys

# Tensors are tiny; threads would only wait for one another.
os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "python"))

import torch  # noqa: E402

torch.set_num_threads(1)
