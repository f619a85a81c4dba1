"""What an upload of at most 10 MB costs to decode: seconds, and the memory it adds at its peak.

Each picture is decoded in a process of its own, with the limits of the server. Asked: at most 2 s
and 200 MB more, or an error of a type of its own. The clock runs on a shared machine, so both the
seconds that passed and those of the processor are shown.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.common import memory
from triptych.api.config import Limits
from triptych.encoders.pictures.picture import load_picture, thumbnail
from triptych.errors import PictureError

SIDE = 5_000  # 25 megapixels, the most that is let in


def flat(format: str, mode: str, side: int = SIDE, **options: Any) -> bytes:
    """Return a picture of one colour: few bytes, many pixels."""
    buffer = BytesIO()
    Image.new(mode, (side, side)).save(buffer, format, **options)
    return buffer.getvalue()


def noise(format: str, side: int, **options: Any) -> bytes:
    """Return a picture that cannot be compressed."""
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


def animation(format: str, side: int, frames: int) -> bytes:
    """Return a picture that moves."""
    first, *rest = (Image.new("P", (side, side), n % 256) for n in range(frames))
    buffer = BytesIO()
    first.save(buffer, format, save_all=True, append_images=rest)
    return buffer.getvalue()


def scans(number: int, side: int = SIDE) -> bytes:
    """Return a progressive JPEG whose last scan comes again and again."""
    plain = flat("JPEG", "RGB", side, progressive=True)
    body = plain.removesuffix(b"\xff\xd9")
    last = body[body.rindex(b"\xff\xda") :]
    return body + last * (number - body.count(b"\xff\xda")) + b"\xff\xd9"


UPLOADS: dict[str, Callable[[], bytes]] = {
    "JPEG, noise": lambda: noise("JPEG", SIDE, quality=20),
    "JPEG, progressive, 4:4:4": lambda: noise(
        "JPEG", SIDE, quality=15, progressive=True, subsampling=0
    ),
    "JPEG, progressive, CMYK": lambda: flat("JPEG", "CMYK", progressive=True),
    "JPEG of 32 scans": lambda: scans(32),
    "JPEG of 100,000 scans": lambda: scans(100_000),
    "JPEG of 65,000 x 65,000": lambda: scans(10, 100).replace(b"\0\x64\0\x64", b"\xfd\xe8\xfd\xe8"),
    "PNG, RGB": lambda: flat("PNG", "RGB"),
    "PNG, noise": lambda: noise("PNG", 1_850, compress_level=0),
    "PNG, RGBA, 10 megapixels": lambda: flat("PNG", "RGBA", 3_200),
    "PNG, RGBA": lambda: flat("PNG", "RGBA"),
    "PNG, 16 bits": lambda: flat("PNG", "I;16"),
    "PNG, 16 bits, 7 megapixels": lambda: flat("PNG", "I;16", 2_700),
    "PNG, 1 bit": lambda: flat("PNG", "1"),
    "PNG, palette, transparent": lambda: flat("PNG", "P", transparency=bytes(256)),
    "PNG bomb, 40,000 x 40,000": lambda: flat("PNG", "1", 40_000),
    "GIF, 40 frames": lambda: animation("GIF", SIDE, 40),
    "WebP, noise, 12 megapixels": lambda: noise("WEBP", 3_460, quality=30, method=0),
    "WebP, RGBA": lambda: flat("WEBP", "RGBA", method=0),
    "WebP, 10 frames": lambda: animation("WEBP", 2_000, 10),
    "TIFF, LZW": lambda: flat("TIFF", "RGB", compression="tiff_lzw"),
    "TIFF, floats": lambda: flat("TIFF", "F", compression="tiff_adobe_deflate"),
    "TIFF, floats, 7 megapixels": lambda: flat(
        "TIFF", "F", 2_700, compression="tiff_adobe_deflate"
    ),
    "AVIF": lambda: flat("AVIF", "RGB", speed=10),
    "AVIF, noise, 12 megapixels": lambda: noise("AVIF", 3_460, quality=30, speed=10),
    "PPM of digits": lambda: b"P3 1860 930 255\n" + b"1 " * (3 * 1860 * 930),
    "SVG": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'>" + b"<g>" * 3_000_000,
    "JPEG, cut": lambda: noise("JPEG", SIDE, quality=20)[: 3 * 2**20],
    "PNG, cut": lambda: flat("PNG", "RGB")[:-40_000],
}


def measure(path: Path) -> str:
    """Decode one in this process; return seconds, seconds of the processor, MB, what came."""
    limits = Limits().picture
    load_picture(flat("PNG", "RGB", 8), limits=limits)
    data = path.read_bytes()
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    before, start, busy = memory("VmHWM"), time.perf_counter(), time.process_time()
    try:
        picture = load_picture(data, limits=limits, size_hint=224)
        thumbnail(picture)
        came = f"{picture.width} x {picture.height}"
    except PictureError as error:
        came = f"`{error.code}`"
    spent, busy = time.perf_counter() - start, time.process_time() - busy
    more = (memory("VmHWM") - before) / 2**20
    return f"{spent:.2f} | {busy:.2f} | {more:.0f} | {came}"


def main() -> None:
    """Print the table."""
    print("| upload | MB | seconds | of the processor | MB more | what came |")
    print("|---|---|---|---|---|---|")
    with TemporaryDirectory() as folder:
        for name, make in UPLOADS.items():
            path = Path(folder) / "upload"
            path.write_bytes(make())
            command = [sys.executable, "-m", "benchmarks.uploads", str(path)]
            said = subprocess.run(command, capture_output=True, text=True, check=True)
            print(f"| {name} | {path.stat().st_size / 2**20:.2f} | {said.stdout.strip()} |")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(measure(Path(sys.argv[1])))
    else:
        main()
