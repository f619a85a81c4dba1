"""The default model, looking at every picture twice: better hits for twice the time.

A net trained on crops of photos sees the whole a little too small (Touvron et al. 2019,
1906.06423); its middle, larger and mirrored, errs elsewhere, and the mean of both errs less.
"""

from __future__ import annotations

from triptych.encoders.onnx import OnnxModel
from triptych.encoders.pictures.look import FINE


class FineModel:
    """Opens an `OnnxModel` that looks twice."""

    @classmethod
    def from_name(cls, argument: str, *, threads: int = 1) -> OnnxModel:
        """Return the model in the folder `argument`; where it is empty, the package's own."""
        model = OnnxModel.from_name(argument, threads=threads)
        return model.looking(FINE, name=f"{model.name}-fine")
