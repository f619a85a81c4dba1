"""A stranger's picture costs little, or is refused by name before it does."""

from __future__ import annotations

import pytest

from benchmarks.uploads import animation, flat, noise, scans
from triptych.api.config import Limits
from triptych.encoders.pictures.guard import MAX_SCANS
from triptych.encoders.pictures.picture import PictureLimits, load_picture
from triptych.errors import PictureError

SERVED = Limits().picture


def refusal(data: bytes, limits: PictureLimits = SERVED) -> str:
    with pytest.raises(PictureError) as caught:
        load_picture(data, limits=limits, size_hint=224)
    return caught.value.code


def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    assert load_picture(scans(MAX_SCANS, 64), limits=SERVED).size == (64, 64)
    assert refusal(scans(MAX_SCANS + 1, 64)) == "picture_too_slow"
    assert refusal(scans(100_000, 64)) == "picture_too_slow"


def test_what_a_camera_hangs_on_to_a_picture_is_not_counted_as_scans() -> None:
    film = b"\0\0\0\x18ftypmp42" + b"\xff\xda\0\x0c of a film " * 1_000
    moving = scans(MAX_SCANS, 64) + film
    assert load_picture(moving, limits=SERVED).size == (64, 64)
    preview = b"\xff\xe2\xfd\xea" + b"\xff\xd9" + b"\xff\xda" * 32_499
    assert refusal(b"\xff\xd8" + preview + scans(MAX_SCANS + 1, 64)[2:]) == "picture_too_slow"
    assert load_picture(b"\xff\xd8" + preview + scans(10, 64)[2:], limits=SERVED).size == (64, 64)


def test_scans_do_not_hide_behind_a_marker_that_a_decoder_passes_over() -> None:
    hidden = scans(MAX_SCANS + 1, 64).replace(b"\xff\xda", b"\xff\x02\xff\xda")
    assert refusal(hidden) == "picture_too_slow"


@pytest.mark.parametrize(
    ("format", "mode", "side"),
    [("PNG", "RGBA", 3_400), ("PNG", "I;16", 2_900), ("WEBP", "RGBA", 2_900), ("PNG", "LA", 3_400)],
)
def test_what_would_take_too_much_memory_is_refused_undecoded(
    format: str, mode: str, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triptych.encoders.pictures.picture._finished", None)  # not even begun
    assert refusal(flat(format, mode, side)) == "picture_too_large"


@pytest.mark.parametrize(("format", "mode"), [("PNG", "RGB"), ("JPEG", "L"), ("PNG", "1")])
def test_pictures_of_the_largest_size_in_eight_bits_are_not(format: str, mode: str) -> None:
    assert load_picture(flat(format, mode, 5_000), limits=SERVED, size_hint=224)


def test_a_decoder_is_stopped_when_its_time_is_over() -> None:
    quick = PictureLimits(max_seconds=1e-4)
    assert refusal(noise("PNG", 1_000, compress_level=0), quick) == "picture_too_slow"
    assert refusal(animation("WEBP", 500, 2), quick) == "picture_too_slow"
