"""Scans with their reports: does picture plus text name the region of the body better than either?

Label by the nearest neighbours among the train split of `medpix`, asked with its dev split, whose
patients are others. No medical claim: 22 labels of a teaching collection, not findings.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import triptych
from benchmarks.common import DATA
from triptych import Collection, Hit
from triptych.training.data import read_rows

NEIGHBOURS = (1, 3, 5, 10, 15, 25)
RESAMPLES = 2000
SIDES = {
    "picture": ("image",),
    "report": ("text",),
    "picture and report": ("image", "text"),
}


@dataclass(frozen=True, slots=True)
class Scan:
    id: str
    image: bytes
    text: str
    label: str
    case: str  # the patient


def main() -> None:
    known, asked = _scans("train"), _scans("dev")
    cases = len({scan.case for scan in asked})
    print(
        f"{len(asked)} scans of {cases} patients asked among {len(known):,}: label right, percent"
    )
    print(f"  {'':<22}{'neighbours':>10}{'train':>8}{'dev':>8}")
    right = {name: _side(name, sides, known, asked) for name, sides in SIDES.items()}
    largest = Counter(scan.label for scan in known).most_common(1)[0][0]
    print(f"  {'always ' + largest:<40}{_percent([scan.label == largest for scan in asked]):8.1f}")
    better = max(("picture", "report"), key=lambda name: right[name].mean())
    low, high = _interval(right["picture and report"] - right[better], asked)
    gain = 100 * (right["picture and report"] - right[better]).mean()
    print(f"  both over the better side ({better}): {gain:+.1f} points, 95 % of {RESAMPLES:,}")
    print(
        f"  resamples of the patients within {low:+.1f} to {high:+.1f}; the seeds claim 92 % right"
    )


def _side(
    name: str, sides: Sequence[str], known: list[Scan], asked: list[Scan]
) -> NDArray[np.float64]:
    """Print and return who of `asked` is right; how many neighbours vote was chosen on train."""
    with _collection(known, sides) as bank, _collection(asked, sides) as questions:
        of = {scan.id: scan for scan in known}
        learnt = _nearest(bank, bank, known, of)
        scores = {k: _percent(_right(learnt, known, of, k)) for k in NEIGHBOURS}
        k = max(NEIGHBOURS, key=scores.__getitem__)
        found = np.array(_right(_nearest(bank, questions, asked, of), asked, of, k), float)
    print(f"  {name:<22}{k:>10}{scores[k]:8.1f}{100 * found.mean():8.1f}", flush=True)
    return found


def _nearest(
    bank: Collection, questions: Collection, scans: list[Scan], of: Mapping[str, Scan]
) -> list[list[Hit]]:
    """Return each scan's nearest of other patients, asked with the vector that it has as an item.

    An item of a picture and a text goes through the model's fusion; a query of both would be the
    sum of its parts.
    """
    most = max(NEIGHBOURS)
    vectors_QM = questions.vectors([scan.id for scan in scans])
    found = []
    for scan, vector_M in zip(scans, vectors_QM, strict=True):
        hits = bank.search(vector=vector_M, limit=most + 40)
        found.append([hit for hit in hits if of[hit.id].case != scan.case][:most])
    return found


def _right(
    nearest: list[list[Hit]], scans: list[Scan], of: Mapping[str, Scan], k: int
) -> list[bool]:
    """Return whose label has the most votes of k neighbours, each weighing its cosine."""
    right = []
    for hits, scan in zip(nearest, scans, strict=True):
        votes: dict[str, float] = defaultdict(float)
        for hit in hits[:k]:
            votes[of[hit.id].label] += max(hit.score, 0.0)
        right.append(max(votes, key=votes.__getitem__) == scan.label)
    return right


def _interval(gain_Q: NDArray[np.float64], asked: list[Scan]) -> tuple[float, float]:
    """Return the middle 95 % of the mean over resampled patients, in points."""
    draw = np.random.default_rng(0)
    cases = sorted({scan.case for scan in asked})
    rows = [np.array([at for at, s in enumerate(asked) if s.case == case]) for case in cases]
    means = [
        gain_Q[np.concatenate([rows[at] for at in draw.integers(len(rows), size=len(rows))])].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    return 100 * float(low), 100 * float(high)


def _percent(right: Sequence[bool]) -> float:
    return 100 * sum(right) / len(right)


def _scans(split: str) -> list[Scan]:
    return [
        Scan(row.id, row.image or b"", " ".join(row.texts), row.label, str(row.attributes["case"]))
        for row in read_rows(DATA / "medpix.parquet", splits=[split])
    ]


def _collection(scans: list[Scan], sides: Sequence[str]) -> Collection:
    collection = triptych.open(":memory:")
    collection.add({"id": s.id, **{side: getattr(s, side) for side in sides}} for s in scans)
    return collection


if __name__ == "__main__":
    main()
