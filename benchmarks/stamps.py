"""The demo's pictures as an unseen test: each stamp's sentence must find it among all.

No stamp was trained on. The sentences come in many languages; letters, digits and signs are left
out, for their sentences name a character ("A") that the model never learned to read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from triptych.cli.samples import fetch_samples
from triptych.metrics import retrieval_table
from triptych.settings import Settings
from triptych.types import Item

STAMPS = Path(__file__).parent.parent / ".demo" / "pictures"
LANGUAGES = ("en", "de", "fr", "es", "ru", "zh_CN", "ja", "hi", "vi", "el")


def main() -> None:
    settings = Settings.from_env()
    model = settings.open_model(threads=settings.num_threads)
    folder = fetch_samples(STAMPS, say=print)
    pictures = [path for path in sorted(folder.rglob("*.png")) if _is_measured(folder, path)]
    sentences = [_sentences(path.with_suffix(".txt")) for path in pictures]
    picture_PM = model.embed([Item(id=str(path), image=path) for path in pictures])
    print(f"{len(pictures)} stamps; a sentence finds its picture, percent")
    print(f"{'':6}{'texts':>7}{'R@1':>7}{'R@5':>7}{'R@10':>7}{'median rank':>13}")
    for language in LANGUAGES:
        at = [n for n, known in enumerate(sentences) if known.get(language)]
        if not at:
            continue
        texts = [Item(id=str(n), text=sentences[n][language]) for n in at]
        right_TP = np.array(
            [[sentences[n][language] == other.get(language) for other in sentences] for n in at]
        )
        row = retrieval_table(model.embed(texts) @ picture_PM.T, right_TP)
        cells = "".join(f"{100 * row[f'recall@{k}']:7.1f}" for k in (1, 5, 10))
        print(f"{language:6}{len(at):7}{cells}{row['median_rank']:13.0f}")


def _is_measured(folder: Path, path: Path) -> bool:
    return path.relative_to(folder).parts[0] != "symbols" and path.with_suffix(".txt").exists()


def _sentences(path: Path) -> dict[str, str]:
    """Return language to sentence: the first line is English, then `de.utf8=...`."""
    first, *others = path.read_text("utf-8", errors="replace").splitlines() or [""]
    found = {"en": first.strip()}
    for line in others:
        language, equals, sentence = line.partition(".utf8=")
        if equals:
            found[language] = sentence.strip()
    return found


if __name__ == "__main__":
    main()
