"""Pictures embedded per second, file to vector, on one core: ours beside open_clip ViT-B-32.

The peer runs as fast as its users run it on a CPU: ONNX Runtime, int8 weights, Pillow decoding.
Its weights are random, which costs the same time. Also: one query embedded, alone.
"""

from __future__ import annotations

import io
import os
import statistics
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

from benchmarks.common import DATA, WORK, alternate, median_ratio, seconds
from triptych.encoders.base import EmbeddingModel
from triptych.encoders.open_clip.torchvision_guard import guarded_import
from triptych.encoders.runtime import onnxruntime as ort
from triptych.settings import Settings
from triptych.types import Item

BATCH = 32
SIZE = (500, 375)
QUERIES = ["a dog on a beach", "red shoe", "two children playing football in the park", "sunset"]


def main() -> None:
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})  # one core for both
    paths = _photos()
    ours = Settings.from_env().open_model(threads=1)
    session = _vit_b_32()

    def embed_ours() -> None:
        ours.embed([Item(id=str(path), image=path) for path in paths])

    def embed_peer() -> None:
        session.run(None, {"pixels": np.stack([_clip_pixels(path) for path in paths])})

    times = alternate({"triptych": embed_ours, "ViT-B-32": embed_peer}, rounds=7)
    print("file to vector, JPEG 500x375, one core, batch 32")
    for name, took in times.items():
        print(f"  {name:10} {BATCH / statistics.median(took):7.1f} pictures/s")
    print(f"  ratio      {median_ratio(times['ViT-B-32'], times['triptych']):7.2f}")
    _print_query_latency(ours)


def _photos() -> list[Path]:
    """Return JPEG files of photo size: Flickr8k's pictures, scaled up where small."""
    folder = WORK / f"photos-{SIZE[0]}x{SIZE[1]}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{at:05}.jpg" for at in range(BATCH)]
    if not all(path.exists() for path in paths):
        encoded = pq.read_table(DATA / "flickr8k.parquet", columns=["image"])["image"]
        for path, data in zip(paths, encoded[:BATCH].to_pylist(), strict=True):
            picture = Image.open(io.BytesIO(data)).convert("RGB")
            picture.resize(SIZE, Image.Resampling.BICUBIC).save(path, quality=90)
    return paths


def _print_query_latency(model: EmbeddingModel) -> None:
    items = [Item(id="q", text=f"{QUERIES[at % len(QUERIES)]} {at}") for at in range(200)]
    took = [1000 * seconds(lambda item=item: model.embed([item])) for item in items]
    p50, p95 = np.percentile(took[10:], [50, 95])
    print(f"one query embedded, one thread: p50 {p50:.2f} ms, p95 {p95:.2f} ms")


def _vit_b_32() -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(_export()), options, providers=["CPUExecutionProvider"])


def _export() -> Path:
    target = WORK / "vit-b-32.int8.onnx"
    if target.exists():
        return target
    from onnxruntime.quantization import QuantType, quantize_dynamic  # once it is silenced, above

    WORK.mkdir(parents=True, exist_ok=True)
    full = WORK / "vit-b-32.onnx"
    open_clip = guarded_import("open_clip")
    tower = open_clip.create_model("ViT-B-32", pretrained=None).eval().visual
    torch.onnx.export(
        tower,
        (torch.randn(2, 3, 224, 224),),
        str(full),
        input_names=["pixels"],
        output_names=["embedding"],
        dynamic_axes={"pixels": {0: "batch"}, "embedding": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
    quantize_dynamic(
        full, target, weight_type=QuantType.QInt8, per_channel=True,
        op_types_to_quantize=["MatMul", "Gemm"],
    )  # fmt: skip
    full.unlink()
    return target


def _clip_pixels(path: Path) -> np.ndarray:
    """open_clip's own preprocessing: shorter side 224 bicubic, centre crop, normalised."""
    picture = Image.open(path).convert("RGB")
    scale = 224 / min(picture.size)
    width, height = (max(224, round(side * scale)) for side in picture.size)
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - 224) // 2, (height - 224) // 2
    pixels = np.asarray(picture.crop((left, top, left + 224, top + 224)), dtype=np.float32) / 255
    mean = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
    deviation = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)
    return ((pixels - mean) / deviation).transpose(2, 0, 1)


if __name__ == "__main__":
    main()
