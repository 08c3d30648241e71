"""Lathe for Python: opens a DeepSeek model and generates, streams, and scores text with it.

Nothing beside Python's standard library and liblathe (a shared build of Lathe) is needed. See docs/python.md.
"""

from lathe._library import LatheError, version
from lathe._model import Completion, Message, Model, ModelInfo, Piece

__all__ = ["Completion", "LatheError", "Message", "Model", "ModelInfo", "Piece", "version"]
