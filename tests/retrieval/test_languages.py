import pytest

from triptych.retrieval.languages import unserved_script

SERVED = ("en", "zh-Hant", "ru", "hi", "ja")


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("a dog on a beach", None),
        ("ein Hund am Strand", None),
        ("собака на пляже", None),
        ("狗在沙滩上", None),
        ("समुद्र तट पर कुत्ता", None),
        ("浜辺の犬", None),
        ("ውሻ በባህር ዳርቻ", "Ethiopic"),
        ("σκύλος", "Greek"),
        ("강아지", "Korean"),
        ("a photo of σ", None),
        ("", None),
        ("🐕 123", None),
    ],
)
def test_the_script_that_no_language_serves(text: str, script: str | None) -> None:
    assert unserved_script(text, SERVED) == script


@pytest.mark.parametrize("languages", [(), ("und",)])
def test_a_model_without_languages_is_not_judged(languages: tuple[str, ...]) -> None:
    assert unserved_script("σκύλος", languages) is None
