"""Dynamic Memory Compression in PyTorch: operators, and the retrofit of Hugging Face models on its
sharded engine (docs/scale-out.md). Needs torch alone; retrofitting needs transformers, too."""

from .decisions import Decisions
from .model import export, retrofit
from .options import OptionError, RetrofitOptions, TrainOptions

__all__ = ["Decisions", "OptionError", "RetrofitOptions", "TrainOptions", "export", "retrofit"]
