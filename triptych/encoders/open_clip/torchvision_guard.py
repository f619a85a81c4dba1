"""Lets a library that imports torchvision be imported beside a torch of another build.

PyPI's torchvision is built for CUDA; beside a torch for CPU its binary is not loaded, and its
import fails with "operator torchvision::nms does not exist". open_clip needs its picture
transforms only, none of its operators, so the two missing names are declared, without a body.
"""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from types import ModuleType

import torch

logger = logging.getLogger(__name__)

_OPERATORS = ("nms", "qnms")
_kept: list[torch.library.Library] = []  # a library that is collected takes its operators along


def guarded_import(name: str) -> ModuleType:
    """Return the module `name`, which imports torchvision.

    Raises ModuleNotFoundError where either is not installed.
    """
    try:
        import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        _declare_operators()
    return import_module(name)


def _declare_operators() -> None:
    if not _kept:
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in _OPERATORS:
            schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            library.define(schema)  # type: ignore[no-untyped-call]
        _kept.append(library)
        logger.info("torchvision is of another build than torch; its operators are not available.")
    for module in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[module]
