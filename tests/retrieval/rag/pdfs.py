"""PDF files made for a test, byte by byte or by PDFium: no file of anybody's is needed."""

from __future__ import annotations

import io

import pypdfium2
import pypdfium2.raw as pdfium
from PIL import Image


def text_pdf(pages: list[str], *, picture: Image.Image | None = None) -> bytes:
    """Return a PDF with a page for each text, and the picture on the first, a caption below it."""
    objects: list[bytes] = []

    def add(body: bytes) -> int:
        objects.append(body)
        return len(objects)

    font = add(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>")
    parent = len(pages) * 2 + (3 if picture else 2)
    image = 0
    if picture is not None:
        raw = picture.convert("RGB").tobytes()
        size = f"/Width {picture.width} /Height {picture.height} /Length {len(raw)}"
        head = f"<< /Type /XObject /Subtype /Image /ColorSpace /DeviceRGB /BitsPerComponent 8 {size} >>"
        image = add(head.encode() + b"\nstream\n" + raw + b"\nendstream")
    kids = []
    for at, text in enumerate(pages):
        draw = b"BT /F1 12 Tf 14 TL 50 750 Td " + b" ".join(map(_line, text.split("\n"))) + b" ET"
        if picture is not None and at == 0:
            draw += b" q 200 0 0 150 50 400 cm /Im1 Do Q"
            draw += b" BT /F1 12 Tf 50 380 Td (Figure 1: a plain colour) Tj ET"
        stream = add(f"<< /Length {len(draw)} >>\nstream\n".encode() + draw + b"\nendstream")
        drawn = f"/XObject << /Im1 {image} 0 R >>" if picture is not None and at == 0 else ""
        kids.append(
            add(
                f"<< /Type /Page /Parent {parent} 0 R /MediaBox [0 0 612 792] /Contents {stream} 0 R "
                f"/Resources << /Font << /F1 {font} 0 R >> {drawn} >> >>".encode()
            )
        )
    listed = " ".join(f"{kid} 0 R" for kid in kids)
    assert add(f"<< /Type /Pages /Kids [{listed}] /Count {len(kids)} >>".encode()) == parent
    return _file(objects, root=add(f"<< /Type /Catalog /Pages {parent} 0 R >>".encode()))


def scanned_pdf(count: int) -> bytes:
    """Return a PDF whose pages are pictures of pages, with no text."""
    document = pypdfium2.PdfDocument.new()
    for at in range(count):
        page = document.new_page(300, 400)
        scan = Image.new("RGB", (60, 80), (250, 20 * at, 0))
        scan.paste("black", (10, 10, 50, 20))
        bitmap = pypdfium2.PdfBitmap.from_pil(scan)
        image = pypdfium2.PdfImage.new(document)
        image.set_bitmap(bitmap)
        image.set_matrix(pypdfium2.PdfMatrix().scale(300, 400))
        page.insert_obj(image)
        page.gen_content()
    written = io.BytesIO()
    document.save(written)
    return written.getvalue()


def empty_pdf(count: int) -> bytes:
    """Return a PDF of blank pages."""
    document = pypdfium2.PdfDocument.new()
    for _ in range(count):
        document.new_page(100, 100)
    written = io.BytesIO()
    document.save(written, flags=pdfium.FPDF_NO_INCREMENTAL)
    return written.getvalue()


def nested_pdf(*, levels: int, times: int) -> bytes:
    """Return a small PDF that draws `times` to the power of `levels` lines of text.

    A form draws a form that draws a form, each so many times.
    """
    draw = b"/F Do " * times
    text = b"BT /F1 9 Tf 50 700 Td (deep) Tj ET"
    font = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
    forms = [
        b"<< /Type /XObject /Subtype /Form /BBox [0 0 612 792] "
        + f"/Resources << /XObject << /F {at + 6} 0 R >> /Font << /F1 4 0 R >> >> ".encode()
        + f"/Length {len(text if at == levels else draw)} >>\nstream\n".encode()
        + (text if at == levels else draw)
        + b"\nendstream"
        for at in range(1, levels + 1)
    ]
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 5 0 R /Resources << /XObject << /F 6 0 R >> >> >>"
    contents = f"<< /Length {len(draw)} >>\nstream\n".encode() + draw + b"\nendstream"
    head = [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>"]
    return _file([*head, page, font, contents, *forms], root=1)


def encrypted_pdf() -> bytes:
    """Return a PDF that asks for a password: its handler and its key fit no empty one."""
    key = b"<" + b"41" * 32 + b">"
    encrypt = b"<< /Filter /Standard /V 1 /R 2 /O " + key + b" /U " + key + b" /P -44 >>"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [] /Count 0 >>",
        encrypt,
    ]
    return _file(objects, root=1, more=b"/Encrypt 3 0 R /ID [<00><00>]")


def _line(text: str) -> bytes:
    escaped = text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
    return b"(" + escaped.encode("cp1252") + b") Tj T*"


def _file(objects: list[bytes], *, root: int, more: bytes = b"") -> bytes:
    out = bytearray(b"%PDF-1.4\n")
    places = []
    for at, body in enumerate(objects, 1):
        places.append(len(out))
        out += f"{at} 0 obj\n".encode() + body + b"\nendobj\n"
    start = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += b"".join(f"{place:010} 00000 n \n".encode() for place in places)
    out += f"trailer\n<< /Size {len(objects) + 1} /Root {root} 0 R ".encode() + more + b" >>\n"
    out += f"startxref\n{start}\n%%EOF\n".encode()
    return bytes(out)
