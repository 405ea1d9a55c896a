"""Dynamic Memory Compression in PyTorch: operators, and the retrofit of Hugging Face models on its
sharded engine (docs/scale-out.md). Needs torch alone; retrofitting needs transformers, too."""

from __future__ import annotations

import typing

from .decisions import Decisions
from .model import export, retrofit
from .options import OptionError, RetrofitOptions, TrainOptions

__all__ = [
    "Decisions",
    "OptionError",
    "RetrofitCallback",
    "RetrofitOptions",
    "TrainOptions",
    "export",
    "retrofit",
]


def __getattr__(name: str) -> typing.Any:
    if name != "RetrofitCallback":
        raise AttributeError(f"module 'dmc.torch' has no attribute {name!r}")
    from .callback import RetrofitCallback  # needs transformers

    return RetrofitCallback
