import base64
import os
import struct
import subprocess
import sys
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from triptych.encoders.pictures.picture import PictureLimits, load_picture, picture_bytes, thumbnail
from triptych.errors import InvalidInput, PictureError

NOISE = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
SMOOTH = Image.fromarray(NOISE).resize((80, 60), Image.Resampling.BICUBIC)
FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "MPO"]
TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def distance(picture: Image.Image, other: Image.Image) -> float:
    assert picture.size == other.size
    return float(np.abs(np.asarray(picture, float) - np.asarray(other, float)).mean())


def code_of(source: Any, **options: Any) -> str:
    with pytest.raises(PictureError) as caught:
        load_picture(source, **options)
    assert "0x" not in str(caught.value), "an address of the heap"
    assert len(str(caught.value)) < 400
    return caught.value.code.removeprefix("picture_")


def png_of(width: int, height: int) -> bytes:
    """Return a PNG of one bit per pixel, tiny for its size, that holds at most 9,000 rows."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    rows = zlib.compress(bytes(width // 8 + 2) * min(height, 9000), 9)
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_comes_as_rgb(kind: str) -> None:
    picture = load_picture(encoded(SMOOTH, kind))
    assert (picture.mode, type(picture), picture.info) == ("RGB", Image.Image, {})
    assert distance(picture, SMOOTH) < 12


@pytest.mark.parametrize("kind", [*FORMATS, "ICO"])
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"compression": "tiff_lzw"}], ids=str
)
def test_what_is_cut_is_refused_at_every_sixteenth(kind: str, options: dict[str, Any]) -> None:
    whole = encoded(SMOOTH, kind, **options)
    codes = {code_of(whole[: len(whole) * part // 16]) for part in range(1, 16)}
    assert codes <= {"truncated", "unreadable"}
    if kind in ("JPEG", "PNG", "WEBP", "GIF"):
        assert codes == {"truncated"}


JPEGS: list[dict[str, Any]] = [
    {}, {"optimize": True}, {"subsampling": 0}, {"restart_marker_blocks": 4}, {"progressive": True},
]  # fmt: skip


@pytest.mark.parametrize("options", JPEGS, ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("hint", [None, 16])
def test_a_jpeg_that_lacks_its_end_mark_only_is_read_and_one_that_lacks_more_is_not(
    mode: str, options: dict[str, Any], hint: int | None
) -> None:
    jpeg = encoded(SMOOTH.convert(mode), "JPEG", **options)
    whole = load_picture(jpeg, size_hint=hint)
    for cut in (1, 2):  # in two, and off
        assert load_picture(jpeg[:-cut], size_hint=hint) == whole
    for cut in range(3, 60):
        try:
            assert load_picture(jpeg[:-cut], size_hint=hint) == whole, "a bit that nobody sees"
        except PictureError as error:
            assert error.code == "picture_truncated"
            continue
        assert cut < 6


def test_a_scan_that_is_not_there_is_not_the_end_mark_alone() -> None:
    jpeg, at = encoded(SMOOTH, "JPEG", progressive=True), 0
    for _ in range(jpeg.count(b"\xff\xda") - 1):
        at = jpeg.index(b"\xff\xda", at + 1)
        assert code_of(jpeg[:at]) == "truncated"
    assert code_of(jpeg[: jpeg.rindex(b"\xff\xc4")]) == "truncated"


@pytest.mark.parametrize("options", JPEGS, ids=str)
def test_zeros_in_the_place_of_a_jpegs_rest_are_no_picture(options: dict[str, Any]) -> None:
    jpeg = encoded(SMOOTH, "JPEG", **options)
    assert code_of(jpeg[: len(jpeg) // 2].ljust(100_000, b"\0")) == "truncated"
    assert load_picture(jpeg.ljust(100_000, b"\0")) == load_picture(jpeg)


@given(st.binary(max_size=200), st.sampled_from(FORMATS), st.integers(0, 1000))
@settings(max_examples=150, deadline=None)
def test_damage_is_refused_or_read_but_never_crashes(junk: bytes, kind: str, at: int) -> None:
    whole = encoded(SMOOTH, kind)
    at %= len(whole)
    try:
        assert load_picture(whole[:at] + junk + whole[at + len(junk) :]).mode == "RGB"
    except PictureError as error:
        assert "0x" not in str(error)


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        (b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isomavc1", "video"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", r"camera raw \(CR3\)"),
        (b"FUJIFILMCCD-RAW 0201", r"camera raw \(RAF\)"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "PostScript"),
        (b"%PDF-1.7", "PDF"),
        (b"\n<!DOCTYPE html><html>", "HTML"),
        (b"8BPS\0\1", "PSD"),
        (b"just words", "text"),
        (b"\0\1\2\3\4\5", "unknown"),
    ],
)
def test_what_is_no_picture_is_named(data: bytes, seen: str) -> None:
    assert code_of(data) == "format"
    with pytest.raises(PictureError, match=seen):
        load_picture(data)


def test_the_small_copy_that_camera_raw_begins_with_is_not_taken_for_the_picture() -> None:
    small = BytesIO()
    SMOOTH.save(small, "TIFF", tiffinfo={254: 1})  # NewSubfileType, as in NEF and DNG
    with pytest.raises(PictureError, match=r"camera raw .* only a small copy, 80 x 60, can be"):
        load_picture(small.getvalue())
    page = BytesIO()
    SMOOTH.save(page, "TIFF", tiffinfo={254: 2})  # a page of several, as scanners write
    assert load_picture(page.getvalue()).size == SMOOTH.size


def test_a_tiff_that_nobody_can_decode_may_be_camera_raw() -> None:
    sensor = encoded(SMOOTH, "TIFF").replace(
        struct.pack("<HHIHH", 262, 3, 1, 2, 0), struct.pack("<HHIHH", 262, 3, 1, 32803, 0)
    )
    assert code_of(sensor) == "unreadable"
    with pytest.raises(PictureError, match="damaged, cut or camera raw"):
        load_picture(sensor)


@pytest.mark.parametrize("data", [b"", b"\xff", bytearray(), memoryview(b"")])
def test_nothing_is_no_picture(data: Any) -> None:
    assert code_of(data) == "empty"


@pytest.mark.parametrize("size", [(9000, 9000), (60000, 60000), (1, 2**31 - 1)])
def test_a_bomb_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    code = """
import resource, sys
from triptych.encoders.pictures.picture import load_picture, PictureError
data = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try: load_picture(data)
except PictureError as error: assert error.code == "picture_too_large", error
else: raise SystemExit("it was read")
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
"""
    bomb = png_of(*size)
    assert len(bomb) < 100_000
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], input=bomb, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()


def test_a_large_jpeg_is_decoded_smaller() -> None:
    large = Image.new("L", (12000, 9000), 77)
    plain, progressive = encoded(large, "JPEG"), encoded(large, "JPEG", progressive=True)
    assert load_picture(plain).size == (6000, 4500)
    assert load_picture(plain, size_hint=256).size == (1500, 1125)
    assert code_of(plain, limits=PictureLimits(max_pixels=1_000_000)) == "too_large"
    # all of its coefficients would lie in memory
    assert code_of(progressive, size_hint=256) == "too_large"


@given(st.integers(1, 900), st.integers(1, 900), st.integers(1, 300))
@settings(max_examples=40, deadline=None)
def test_a_hint_leaves_twice_the_size(width: int, height: int, hint: int) -> None:
    data = encoded(Image.new("L", (width, height)), "JPEG")
    got = load_picture(data, size_hint=hint).size
    assert min(got) >= min(2 * hint, width, height)


def test_limits_are_the_callers() -> None:
    data = encoded(SMOOTH)
    assert code_of(data, limits=PictureLimits(max_bytes=100)) == "too_large"
    assert code_of(SMOOTH, limits=PictureLimits(max_pixels=100)) == "too_large"
    assert code_of(np.zeros((60, 80)), limits=PictureLimits(max_pixels=100)) == "too_large"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", TURNS)
def test_all_eight_orientations_are_upright(kind: str, orientation: int) -> None:
    turn = TURNS[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(SMOOTH if turn is None else SMOOTH.transpose(turn), kind, exif=exif)
    once = load_picture(data)
    assert distance(once, SMOOTH) < 6
    assert distance(load_picture(once), once) == 0


@pytest.mark.parametrize(
    ("mode", "value", "rgb"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 9, (9, 9, 9)),
        ("LA", (100, 0), (255, 255, 255)),
        ("La", (50, 128), (177, 177, 177)),
        ("RGBA", (255, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (255, 0, 0, 128), (255, 127, 127)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("YCbCr", (128, 128, 128), (128, 128, 128)),
        ("HSV", (0, 255, 255), (255, 0, 0)),
        ("LAB", (128, 128, 128), (119, 119, 119)),
        ("I;16", 40000, (156, 156, 156)),
        ("I;16B", 40000, (156, 156, 156)),
        ("I", 40000, (156, 156, 156)),
        ("F", 0.5, (128, 128, 128)),
        ("F", 200.0, (200, 200, 200)),
    ],
)
def test_every_mode_has_its_true_colour(mode: str, value: Any, rgb: tuple[int, ...]) -> None:
    got = load_picture(Image.new(mode, (4, 4), value)).getpixel((1, 1))
    assert isinstance(got, tuple)
    assert np.abs(np.subtract(got, rgb)).max() <= 1


def test_cmyk_jpegs_are_not_inverted() -> None:
    data = encoded(Image.new("RGB", (16, 16), (200, 30, 40)).convert("CMYK"), "JPEG")
    assert distance(load_picture(data), Image.new("RGB", (16, 16), (200, 30, 40))) < 3


@pytest.mark.parametrize("transparency", [1, b"\xff\0"])
def test_a_transparent_palette_is_white(transparency: Any) -> None:
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([255, 0, 0, 0, 255, 0])
    got = load_picture(encoded(picture, transparency=transparency))
    assert got.getpixel((0, 0)) == (255, 255, 255)


def shape(colour: tuple[int, int, int, int], hidden: tuple[int, int, int, int]) -> Image.Image:
    picture = Image.new("RGBA", (20, 20), hidden)
    picture.paste(colour, (5, 5, 15, 15))
    return picture


@pytest.mark.parametrize("level", [224, 240, 255])
def test_white_on_transparency_is_seen(level: int) -> None:
    got = load_picture(encoded(shape((level, level, 255, 255), (0, 0, 0, 0))))
    assert got.getpixel((10, 10)) == (level, level, 255)
    assert got.getpixel((0, 0)) == (160, 160, 160)


@pytest.mark.parametrize(
    "picture",
    [
        shape((223, 255, 255, 255), (0, 0, 0, 0)),  # pale, but seen
        shape((255, 255, 255, 255), (90, 0, 0, 60)),  # with a shadow
        shape((255, 255, 255, 60), (0, 0, 0, 0)),  # nothing to see on any ground
    ],
)
def test_what_is_seen_on_white_stays_there(picture: Image.Image) -> None:
    white = Image.new("RGB", picture.size, "white")
    white.paste(picture.convert("RGB"), mask=picture.getchannel("A"))
    assert load_picture(encoded(picture)).tobytes() == white.tobytes()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue", "lime")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert distance(load_picture(data), frames[0]) < 3


@pytest.mark.parametrize("profile", [b"broken", b"", b"sRGB", bytes(5 * 2**20)])
def test_a_profile_that_cannot_be_used_is_ignored(profile: bytes) -> None:
    picture = SMOOTH.copy()
    picture.info["icc_profile"] = profile
    assert distance(load_picture(picture), SMOOTH) == 0


def swapped_profile() -> bytes:
    """Return an ICC profile, of gamma 1, in which red and green of sRGB are exchanged."""
    primaries = {b"rXYZ": (0.3851, 0.7169, 0.0971), b"gXYZ": (0.4361, 0.2225, 0.0139)}
    primaries |= {b"bXYZ": (0.1431, 0.0606, 0.7141), b"wtpt": (0.9642, 1.0, 0.8249)}
    tags = {
        name: b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(x * 65536) for x in xyz))
        for name, xyz in primaries.items()
    }
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), b"curv" + bytes(8))
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data))
        body += data
    size = 128 + len(table) + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head = (head + bytes(12) + b"acsp").ljust(68, b"\0")
    head += struct.pack(">3i", 63190, 65536, 54061)  # the white of the connection space, D50
    return head.ljust(128, b"\0") + table + body


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_profile_is_applied_once(kind: str, mode: str) -> None:
    if (kind, mode) == ("JPEG", "RGBA"):
        pytest.skip("a JPEG has no transparency")
    red = Image.new(mode, (8, 8), (255, 0, 0))
    once = load_picture(encoded(red, kind, icc_profile=swapped_profile()))
    assert distance(once, Image.new("RGB", (8, 8), (0, 255, 0))) < 3
    assert distance(load_picture(once), once) == 0


def test_a_profile_of_another_space_is_ignored() -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert distance(load_picture(encoded(SMOOTH, icc_profile=lab)), SMOOTH) == 0


@pytest.mark.parametrize(
    ("array", "code"),
    [
        (np.zeros((3, 3, 2)), "array"),
        (np.zeros(3), "array"),
        (np.full((3, 3), np.nan), "array"),
        (np.full((3, 3), 1.5), "array"),
        (np.full((3, 3), -0.1), "array"),
        (np.zeros((3, 3), np.uint16), "array"),
        (np.zeros((0, 3)), "empty"),
        (np.zeros((3, 3), dtype=object), "array"),
    ],
)
def test_arrays_that_are_no_picture(array: Any, code: str) -> None:
    assert code_of(array) == code


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4)])
def test_arrays_of_bytes_and_of_floats_agree(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    picture = load_picture(array)
    assert (picture.mode, picture.size) == ("RGB", (7, 5))
    assert distance(load_picture(array / 255), picture) == 0
    assert distance(load_picture(np.asfortranarray(array)), picture) == 0


@pytest.mark.parametrize(
    "uri",
    [
        "data:image/png;base64,{}=",
        "data:image/png;base64, {}",
        "data:image/png;base64,{}\n",
        "data:image/png;base64,-_{}",
        "data:text/html;base64,{}",
        "data:image/png,{}",
        "data:image/png;base64",
        "data:image/png;base64,é{}",
    ],
)
def test_data_uris_are_strict(uri: str) -> None:
    body = base64.b64encode(encoded(SMOOTH) + b"\0" * (-len(encoded(SMOOTH)) % 3)).decode()
    assert code_of(uri.format(body)) == "data_uri"


def test_data_uris_are_read_by_content_and_measured_first() -> None:
    body = base64.b64encode(encoded(SMOOTH)).decode()
    for mime in ("image/png", "image/jpeg", "", "application/octet-stream", "IMAGE/PNG;x=1"):
        assert distance(load_picture(f"data:{mime};base64,{body}"), SMOOTH) == 0
    assert (
        code_of("DATA:image/png;base64," + "?" * 2000, limits=PictureLimits(max_bytes=1000))
        == "too_large"
    )


@pytest.mark.parametrize(
    "name",
    [
        "a.jpg",
        "UPPER.PNG",
        "no suffix",
        "ü 日本 🙂.png",
        "~tilde.png",
        "-dash",
        "a'b\"c\n.png",
        "%41.png",
    ],
)
def test_file_names_are_only_names(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.joinpath(name).write_bytes(encoded(SMOOTH))
    monkeypatch.chdir(tmp_path)
    for source in (name, Path(name), tmp_path / name, str(tmp_path / name)):
        assert distance(load_picture(source), SMOOTH) == 0


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.png")
    assert code_of(name) == "missing"
    Path(name).write_bytes(encoded(SMOOTH))
    assert load_picture(name).size == (80, 60)
    Path(name).write_bytes(b"")
    with pytest.raises(PictureError, match="is empty") as caught:
        load_picture(name)
    str(caught.value).encode("utf-8")


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.joinpath("p.png").write_bytes(encoded(SMOOTH))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_picture("~/p.png").size == load_picture(Path("~/p.png")).size == (80, 60)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (tmp_path, fifo, "/dev/zero", str(tmp_path)):
        assert code_of(path) == "not_file"
    for missing in ("nope.png", tmp_path / "nope" / "x", "a\0b", "x" * 5000, "", "~nobody/x"):
        assert code_of(missing) in ("missing", "not_file")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert code_of(loop) == "missing"


@pytest.mark.parametrize(
    "url", ["http://u:secret@h/x.png?key=1", "https://h/x", "file:///x", "s3://b/k"]
)
def test_addresses_are_refused(url: str) -> None:
    assert code_of(url) == "url"
    with pytest.raises(PictureError) as caught:
        load_picture(url)
    assert "secret" not in str(caught.value)


def test_what_is_no_source_is_named() -> None:
    with pytest.raises(InvalidInput, match="cannot be a int"):
        load_picture(7)  # type: ignore[arg-type]


def test_the_encoded_bytes_are_those_of_the_source(tmp_path: Path) -> None:
    data = encoded(SMOOTH, "WEBP")
    tmp_path.joinpath("p").write_bytes(data)
    assert picture_bytes(tmp_path / "p") == picture_bytes(data) == data
    assert picture_bytes(SMOOTH) is None


@pytest.mark.parametrize("size", [(1, 1), (1, 9000), (9000, 1), (300, 200), (80, 60)])
def test_a_thumbnail_fits(size: tuple[int, int]) -> None:
    small = load_picture(thumbnail(Image.new("RGB", size, "teal")))
    assert max(small.size) == min(max(size), 256)


def test_the_callers_picture_is_left_as_it_was() -> None:
    picture = SMOOTH.copy()
    picture.info["note"] = "mine"
    assert load_picture(picture) is picture
    thumbnail(picture)
    assert (picture.size, picture.info) == (SMOOTH.size, {"note": "mine"})
