"""Retrofitted models in transformers: generate() on compressed caches, in PyTorch, on any device.

Importing this makes AutoModelForCausalLM.from_pretrained() read them; needs torch and transformers.
"""

from .cache import DmcCache
from .model import patch

__all__ = ["DmcCache", "patch"]
