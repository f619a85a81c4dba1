"""ONNX Runtime, silenced: as it comes it notes a device's id and sends events home.

The only module that imports it. A program that imported it before has decided for itself.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

# in time only before the import, which opens what is sent; there is no call that undoes that
os.putenv("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

__all__ = ["onnxruntime", "open_session"]


def open_session(graph: Path, *, threads: int) -> Any:
    """Return the session of a graph; raises whatever ONNX Runtime likes for a file that is none."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # an arena keeps the largest batch it ever saw, many times the weights
    options.enable_cpu_mem_arena = False
    # with AVX2 and no VNNI sums of two products overflow 16 bits: vectors were off by 0.07 of a
    # cosine in the mean. Elsewhere ONNX Runtime leaves the weights as they are
    options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
