"""What a picture's first bytes say it is; file names and labels are never believed."""

from __future__ import annotations

DECODED = {
    b"\xff\xd8\xff": "JPEG",  # MPO, two JPEGs in one file, is opened by the same decoder
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\0\0\1\0": "ICO",
}

REFUSED = {
    b"%PDF": "PDF",
    b"%!PS": "EPS or PostScript",  # decoding it would start Ghostscript
    b"\xc5\xd0\xd3\xc6": "EPS or PostScript",
    b"8BPS": "Photoshop (PSD)",
    b"SIMPLE  =": "FITS",
    b"\x89HDF\r\n": "HDF5",
    b"\xd7\xcd\xc6\x9a": "WMF",
    b"\1\0\0\0": "EMF",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"FUJIFILMCCD-RAW": "camera raw (RAF)",
    b"IIRO": "camera raw (ORF)",
    b"IIRS": "camera raw (ORF)",
    b"MMOR": "camera raw (ORF)",
    b"IIU\0": "camera raw (RW2)",
    b"PK\3\4": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
}

_MARKUP = ((b"<svg", "SVG"), (b"<!doctype html", "HTML"), (b"<html", "HTML"))


def decoder_of(data: bytes) -> str | None:
    """Return Pillow's name of the format of `data`, None for one that is not decoded."""
    for magic, name in DECODED.items():
        if data.startswith(magic):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace():
        return "PPM"
    return "AVIF" if _brands(data) & {b"avif", b"avis"} else None


def media_type(data: bytes) -> str:
    """Return the media type of a picture that is decoded here."""
    kind = decoder_of(data)
    named = {"ICO": "x-icon", "PPM": "x-portable-anymap", None: None}
    said = named.get(kind, str(kind).lower())
    return "application/octet-stream" if said is None else f"image/{said}"


def refused_kind(data: bytes) -> str:
    """Return in words what `data` is, for the sentence that refuses it."""
    for magic, name in REFUSED.items():
        if data.startswith(magic):
            return name
    head = data[:2048].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for tag, name in _MARKUP:
        if tag in head:
            return name
    brands = _brands(data)
    if b"crx " in brands:
        return "camera raw (CR3)"
    if brands:
        is_heic = brands & {b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"}
        return "HEIC" if is_heic else "a video"
    return "text" if _is_text(head) else "an unknown format"


def is_cut(kind: str, data: bytes) -> bool:
    """Return whether `data` ends before its own structure says so; tells short from damaged."""
    if kind == "JPEG":
        return b"\xff\xd9" not in data[-4096:]
    if kind == "PNG":
        return b"IEND" not in data[-4096:]
    if kind == "GIF":
        return not data.rstrip(b"\0").endswith(b";")
    if kind == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    return kind == "BMP" and int.from_bytes(data[2:6], "little") > len(data)


def icon_sizes(data: bytes) -> list[tuple[int, int]]:
    """Return the true sizes of the pictures within an icon; the icon's own directory may lie."""
    count = min(int.from_bytes(data[4:6], "little"), 256)
    starts = (int.from_bytes(data[18 + 16 * i : 22 + 16 * i], "little") for i in range(count))
    return [_inner_size(data[start : start + 24]) for start in starts]


def _inner_size(head: bytes) -> tuple[int, int]:
    if head.startswith(b"\x89PNG"):
        return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    width = int.from_bytes(head[4:8], "little", signed=True)
    height = int.from_bytes(head[8:12], "little", signed=True)
    return abs(width), abs(height)


def _brands(data: bytes) -> set[bytes]:
    """Return the brands of an ISO media file (AVIF, HEIC, MP4), empty for any other."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), 256)
    return {data[8:12]} | {data[at : at + 4] for at in range(16, end, 4)}


def _is_text(head: bytes) -> bool:
    return b"\0" not in head and sum(byte < 9 or 13 < byte < 32 for byte in head) == 0
