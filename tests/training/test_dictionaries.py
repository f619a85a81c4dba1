"""The set of dictionaries: words out of FreeDict's files and CC-CEDICT's, with short meanings."""

import gzip
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import msgpack
import pytest

from triptych.errors import InvalidInput
from triptych.training import dictionaries
from triptych.training.data import read_rows

CEDICT = """# CC-CEDICT
狗 狗 [gou3] /dog/CL:隻|只[zhi1],條|条[tiao2]/
飛機 飞机 [fei1 ji1] /airplane; aeroplane/CL:架[jia4]/
委內瑞拉馬腦炎病毒 委内瑞拉马脑炎病毒 [wei3] /Venezuelan equine encephalitis (VEE) virus/
P圖 P图 [P tu2] /(slang) to edit a picture/
"""


def write_freedict(folder: Path, name: str, entries: dict[str, str]) -> None:
    """As dictd reads it: the index gives where an entry stands and how long it is, in base 64."""
    folder.mkdir(parents=True, exist_ok=True)
    text, lines = b"", []
    for head, entry in entries.items():
        said = entry.encode()
        lines.append(f"{head}\t{number(len(text))}\t{number(len(said))}\n")
        text += said
    (folder / f"freedict-{name}.index").write_text("".join(lines), encoding="utf-8")
    (folder / f"freedict-{name}.dict.dz").write_bytes(gzip.compress(text))


def write_list(folder: Path, name: str, *steps: list[str]) -> None:
    """As wordfreq has it: the words of each centibel."""
    packed = msgpack.packb([{"format": "cB", "version": 1}, *steps])
    (folder / f"{name}.msgpack.gz").write_bytes(gzip.compress(packed))


def number(value: int) -> str:
    """The value's base64, most significant sign first, as RFC 4648 writes its bytes."""
    return b64encode(value.to_bytes(3, "big")).decode().lstrip("A") or "A"


def meanings(folder: Path) -> dict[str, list[str]]:
    return {row.id: list(row.texts[1:]) for row in dictionaries.rows_of(folder)}


def test_a_word_has_the_meanings_of_its_first_sense(tmp_path: Path) -> None:
    write_freedict(
        tmp_path / "usr",
        "deu-eng",
        {
            "fahrrad": "Fahrrad /fˈɑːrɑːt/ <neut, n, sg>\n"
            "bicycle <n>, pedal cycle <n> [coll.] , bike <n>, pushbike <n>\n"
            '      "Fahrrad mit Hilfsmotor"  - motor-assisted pedal cycle\n',
            "gehen": "gehen <v>\nto go (away), sth. to do\nto walk\n",
            "leer": "leer\n\n",
        },
    )
    write_freedict(tmp_path, "hun-eng", {"bicikli": "bicikli /b/\n1. bike\n2. iron horse\n"})
    assert meanings(tmp_path) == {
        "de:Fahrrad": ["bicycle", "pedal cycle", "bike"],
        "de:gehen": ["go"],
        "hu:bicikli": ["bike"],
    }


def test_from_english_each_translation_is_a_word(tmp_path: Path) -> None:
    dog = "dog //dɑɡ// <n>\n1. 犬, 狗 2.\nanimal\n2. ぶす\nunattractive\n"
    hound = "hound <n>\n犬\nanimal\n"
    write_freedict(tmp_path, "eng-jpn", {"dog": dog, "hound": hound})
    assert meanings(tmp_path) == {"ja:犬": ["dog", "hound"], "ja:狗": ["dog"]}


def test_of_several_english_words_the_one_that_it_translates_first(tmp_path: Path) -> None:
    write_list(tmp_path, "small_en", ["machine"], ["car"], ["automobile"])
    entries = {
        "automobile": "automobile <n>\nмашина\n",
        "car": "car <n>\nмашина, вагон\n",
        "machine": "machine <n>\nстанок, машина\n",
    }
    write_freedict(tmp_path, "eng-rus", entries)
    found = meanings(tmp_path)
    assert found["ru:машина"] == ["car", "automobile", "machine"]


def test_notes_of_the_japanese_dictionary_are_no_words(tmp_path: Path) -> None:
    entries = {
        "薔薇": "[ichi1] 薔薇 /bara/, ばら /bara/\n(noun (common) (futsuumeishi))\n\n"
        "         Note: word usually written using kana alonerose, briar\n",
        "犬": "犬 /inu/\n(noun)\n         Note: esp. a pet\ndog, hound\n",
    }
    write_freedict(tmp_path, "jpn-eng", entries)
    assert meanings(tmp_path) == {"ja:薔薇": ["rose", "briar"], "ja:犬": ["dog", "hound"]}


def test_forms_that_no_dictionary_lists_mean_what_the_commonest_of_their_stem_does(
    tmp_path: Path,
) -> None:
    write_freedict(
        tmp_path,
        "deu-eng",
        {
            "katze": "Katze <fem>\ncat\n",
            "katzig": "katzig <adj>\ncatty\n",
            "hund": "Hund\ndog\n",
        },
    )
    far = [*[[]] * 640, ["hunden"], *[[]] * 20]  # rarer than three in ten million is left out
    write_list(tmp_path, "large_de", ["katze"], ["katzen", "katzig", "vogel"], *far, ["hundes"])
    found = meanings(tmp_path)
    assert found.keys() == {"de:Katze", "de:katzig", "de:Hund", "de:katzen", "de:hunden"}
    assert found["de:katzen"] == ["cat"]


def test_a_word_is_as_common_as_the_list_says(tmp_path: Path) -> None:
    write_freedict(tmp_path, "deu-eng", {"hund": "Hund\ndog\n", "qualle": "Qualle\njelly\n"})
    (tmp_path / "cedict_1_0_ts_utf-8_mdbg.txt.gz").write_bytes(gzip.compress(CEDICT.encode()))
    write_list(tmp_path, "small_de", *[[]] * 200, ["hund"])
    write_list(tmp_path, "small_zh", *[[]] * 300, ["飞机"])
    packed = gzip.compress(msgpack.packb({ord("飛"): "飞", ord("機"): "机"}))
    (tmp_path / "_chinese_mapping.msgpack.gz").write_bytes(packed)
    share = {row.id: row.attributes["frequency"] for row in dictionaries.rows_of(tmp_path)}
    assert share["de:Hund"] == pytest.approx(0.01) and share["de:Qualle"] == 0.0
    assert share["zh:飞机"] == share["zh-hant:飛機"] == pytest.approx(0.001)


def test_russian_by_way_of_german(tmp_path: Path) -> None:
    write_freedict(tmp_path, "deu-eng", {"katze": "Katze <fem>\ncat <n>, feline\n"})
    write_freedict(
        tmp_path, "deu-rus", {"katze": "Katze <fem>\nко\u0301шка, кот\nTier\n", "x": "Xyz\nикс\n"}
    )
    found = meanings(tmp_path)
    assert found == {"de:Katze": ["cat", "feline"], "ru:кот": ["cat"], "ru:кошка": ["cat"]}


def test_chinese_in_both_kinds_of_writing(tmp_path: Path) -> None:
    (tmp_path / "cedict_1_0_ts_utf-8_mdbg.txt.gz").write_bytes(gzip.compress(CEDICT.encode()))
    assert meanings(tmp_path) == {
        "zh:狗": ["dog"],
        "zh:飞机": ["airplane", "aeroplane"],
        "zh-hant:飛機": ["airplane", "aeroplane"],
        "zh:P图": ["edit a picture"],
        "zh-hant:P圖": ["edit a picture"],
    }


def test_the_command_writes_rows_that_training_reads(tmp_path: Path) -> None:
    write_freedict(tmp_path, "fra-eng", {"vélo": "vélo /velo/ <n>\nbike, bicycle\n"})
    out = tmp_path / "data" / "dictionaries.parquet"  # a folder that is not there yet
    command = [sys.executable, "-m", "triptych.training.dictionaries", tmp_path, "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"1 words in {out}\n"
    (row,) = read_rows(out, splits=["train"])
    assert (row.texts, row.label, row.image) == (("vélo", "bike", "bicycle"), "fr", None)


def test_a_folder_without_dictionaries_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="holds no dictionary"):
        dictionaries.rows_of(tmp_path)
