"""ONNX Runtime, silenced: as it comes it notes a device's id and sends events home.

The only module that imports it. A program that imported it before has decided for itself.
"""

from __future__ import annotations

import os

# in time only before the import, which opens what is sent; there is no call that undoes that
os.putenv("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

__all__ = ["onnxruntime"]
