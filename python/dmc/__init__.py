"""Language models with a KV cache that learned to be small, without PyTorch.

Everything is loaded when it is first used, so that the parts that stand alone (dmc.torch, dmc.hf)
can be imported without the extension module.
"""

from __future__ import annotations

import importlib
import typing

_HOME = {
    "CancelledError": "errors",
    "CompletionOutput": "outputs",
    "DataError": "errors",
    "Error": "errors",
    "ExhaustedError": "errors",
    "InternalError": "errors",
    "InvalidArgumentError": "errors",
    "KvCache": "_core",
    "KvRecord": "outputs",
    "LLM": "llm",
    "Likelihood": "outputs",
    "Logprob": "outputs",
    "NotFoundError": "errors",
    "RequestOutput": "outputs",
    "SamplingParams": "sampling",
    "Score": "outputs",
    "Server": "server",
    "UnavailableError": "errors",
    "__version__": "_core",
    "serve": "server",
    "set_threads": "_core",
    "threads": "_core",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> typing.Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'dmc' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if typing.TYPE_CHECKING:
    from ._core import (
        KvCache as KvCache,
        __version__ as __version__,
        set_threads as set_threads,
        threads as threads,
    )
    from .errors import (
        CancelledError as CancelledError,
        DataError as DataError,
        Error as Error,
        ExhaustedError as ExhaustedError,
        InternalError as InternalError,
        InvalidArgumentError as InvalidArgumentError,
        NotFoundError as NotFoundError,
        UnavailableError as UnavailableError,
    )
    from .llm import LLM as LLM
    from .outputs import (
        CompletionOutput as CompletionOutput,
        KvRecord as KvRecord,
        Likelihood as Likelihood,
        Logprob as Logprob,
        RequestOutput as RequestOutput,
        Score as Score,
    )
    from .sampling import SamplingParams as SamplingParams
    from .server import Server as Server, serve as serve
