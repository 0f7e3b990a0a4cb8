"""Mutated files of a run: each gives the same data or one GrokscopeError that names the file, within a second."""

import os
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from grokscope import Trajectory
from grokscope.disk import tensor_file
from grokscope.errors import GrokscopeError
from hostile import judging, mutations

FIRST = int(os.environ.get("GROKSCOPE_FIRST_MUTATION", "0"))
"""So that the full count can be run in pieces."""
LAST = int(os.environ.get("GROKSCOPE_LAST_MUTATION", "10000"))


@pytest.fixture
def hurt(measured_run: Path, tmp_path: Path) -> Path:
    """A copy of the run that is there to be changed."""
    return shutil.copytree(measured_run, tmp_path / "run")


def truth_of(run: Path) -> dict[Any, Any]:
    refusals: list[str] = []
    truth = judging.everything(run, refusals.append)
    assert not refusals
    kinds = {key if isinstance(key, str) else key[0] for key in truth}
    assert kinds == {"record", "series", "checkpoint", "log", "resume", "cached"}
    return truth


def run_mutations(run: Path, numbers: range) -> tuple[Counter[str], list[str], float]:
    """Make the mutations of these numbers, one at a time; return verdicts, what was wrong, and the longest time."""
    truth, targets = truth_of(run), mutations.files_of(run)
    contents = {path: path.read_bytes() for path in targets}
    counts: Counter[str] = Counter()
    wrong, slowest = [], 0.0
    for number in numbers:
        choose = random.Random(number)
        # A third each: the record, the segments, the cached measures.
        kinds = [targets[:1], [path for path in targets if path.parent.name == "segments"], targets[-1:]]
        path = choose.choice(kinds[number % 3])
        kind, data = mutations.damage(contents[path], [contents[other] for other in targets], choose)
        path.write_bytes(data)
        try:
            verdict = judging.judge(run, path, truth)
        except Exception as error:
            wrong.append(f"mutation {number}, {kind} of {path.name}: {type(error).__name__}: {error}")
        else:
            counts[f"{path.parent.name if path.parent != run else path.name}: {verdict.word}"] += 1
            slowest = max(slowest, verdict.seconds)
            not_named = [one for one in verdict.refusals if one.startswith("not named")]
            if verdict.word not in ("the same", "refused") or not_named:
                wrong.append(
                    f"mutation {number}, {kind} of {path.name}: {verdict.word}; {verdict.differing} {not_named}"
                )
        path.write_bytes(contents[path])
    return counts, wrong, slowest


@pytest.mark.parametrize(
    "numbers", [range(100), pytest.param(range(FIRST, LAST), marks=pytest.mark.slow)], ids=["100", "10000"]
)
def test_a_mutated_file_gives_the_same_data_or_one_error_that_names_it(numbers: range, hurt: Path):
    counts, wrong, slowest = run_mutations(hurt, numbers)
    print(f"{len(numbers):,} mutations: {dict(counts)}; {len(wrong)} wrong; slowest {slowest:.2f} s")
    assert not wrong, "\n".join(wrong[:20])
    assert sum(counts.values()) == len(numbers)
    assert sum(n for word, n in counts.items() if "refused" in word) > 0.5 * len(numbers)
    assert slowest < judging.SLOWEST


def test_the_control_a_reader_that_trusts_checksums_to_be_right_is_caught(
    hurt: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tensor_file, "_structure", lambda about, layout, checksums: 0)
    monkeypatch.setattr(tensor_file.TensorFile, "_mismatches", lambda *arguments: iter(()))
    original = tensor_file.TensorFile.__init__

    def trusting(self: Any, path: Path) -> None:
        monkeypatch.setattr(tensor_file, "_structure", lambda *_: Anything())
        original(self, path)

    monkeypatch.setattr(tensor_file.TensorFile, "__init__", trusting)
    _, wrong, _ = run_mutations(hurt, range(0, 60))
    assert any("other data" in one for one in wrong)


class Anything:
    """Equal to whatever it is compared with."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # pyright: ignore[reportAssignmentType]


def judged_forgery(run: Path, path: Path, data: bytes, truth: dict[Any, Any]) -> judging.Verdict:
    path.write_bytes(data)
    return judging.judge(run, path, truth)


@pytest.mark.parametrize("name", mutations.SENSELESS_SEGMENTS)
def test_a_segment_forged_with_right_checksums_is_refused_by_name(name: str, hurt: Path):
    truth = truth_of(hurt)
    for seed in range(1):
        path = random.Random(seed).choice(sorted((hurt / "segments").iterdir()))
        data = path.read_bytes()
        forged = mutations.forged(data, mutations.SENSELESS_SEGMENTS[name], random.Random(seed))
        verdict = judged_forgery(hurt, path, forged, truth)
        path.write_bytes(data)
        said = "; ".join(verdict.refusals)
        assert verdict.word == "refused" and str(path) in said and "not named" not in said, (verdict.differing, said)
        assert verdict.seconds < judging.SLOWEST


@pytest.mark.parametrize("name", mutations.SENSELESS_SERIES)
def test_a_measure_forged_with_right_checksums_is_refused_or_measured_again(name: str, hurt: Path):
    truth = truth_of(hurt)
    path = hurt / "measures" / "loss.safetensors"
    forged = mutations.forged(path.read_bytes(), mutations.SENSELESS_SERIES[name], random.Random(0))
    path.write_bytes(forged)
    found = judging.everything(hurt, lambda sentence: None)
    assert not any(key[0] == "cached" for key in found), "a report would show it"
    assert {key: value for key, value in found.items() if key[0] != "series"} == {
        key: value for key, value in truth.items() if key[0] not in ("series", "cached")
    }


@pytest.mark.parametrize("name", mutations.SENSELESS_RECORDS)
def test_a_record_forged_with_a_right_digest_is_refused(name: str, hurt: Path):
    path = hurt / "config.json"
    path.write_bytes(mutations.resealed_record(path.read_bytes(), mutations.SENSELESS_RECORDS[name]))
    with pytest.raises(GrokscopeError):
        Trajectory.open(hurt)


def test_a_copy_in_the_place_of_the_last_segment_is_named(hurt: Path):
    """It leaves no gap that shows, as the run might have been stopped there; its own checksums are right."""
    truth, paths = truth_of(hurt), sorted((hurt / "segments").iterdir())
    verdict = judged_forgery(hurt, paths[-1], paths[0].read_bytes(), truth)
    assert verdict.word == "refused" and any("is a copy of 000001" in one for one in verdict.refusals)


def test_the_control_what_is_forged_with_sense_is_taken(hurt: Path):
    """A checksum is no signature: who changes numbers and checksums alike changes the run, and no reader can tell."""
    truth = truth_of(hurt)
    path = sorted((hurt / "segments").iterdir())[1]

    def forge(metadata: Any, arrays: Any, by_row: Any, choose: random.Random) -> None:
        arrays["checkpoints/embed.W_E"] = -arrays["checkpoints/embed.W_E"]

    verdict = judged_forgery(hurt, path, mutations.forged(path.read_bytes(), forge, random.Random(0)), truth)
    assert verdict.word == "other data" and not verdict.refusals
