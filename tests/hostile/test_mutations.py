"""Changed files of a run: each gives the same data, or a GrokscopeError that names the file, within a second."""

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
"""The first and last mutation, so that a full run can be split."""
LAST = int(os.environ.get("GROKSCOPE_LAST_MUTATION", "10000"))


@pytest.fixture
def damaged_run(measured_run: Path, tmp_path: Path) -> Path:
    """A copy of the measured run that a test damages."""
    return shutil.copytree(measured_run, tmp_path / "run")


def truth_of(run: Path) -> dict[Any, Any]:
    refusals: list[str] = []
    truth = judging.read_all(run, refusals.append)
    assert not refusals
    kinds = {key if isinstance(key, str) else key[0] for key in truth}
    assert kinds == {"record", "series", "checkpoint", "log", "resume", "cached"}
    return truth


def run_mutations(run: Path, numbers: range) -> tuple[Counter[str], list[str], float]:
    """Judge the mutations of these numbers, one at a time; return the verdicts, the failures and the longest time."""
    truth, targets = truth_of(run), mutations.files_of(run)
    contents = {path: path.read_bytes() for path in targets}
    counts: Counter[str] = Counter()
    failures, slowest = [], 0.0
    for number in numbers:
        choose = random.Random(number)
        # A third of the mutations each: the record, the segments, the saved measures.
        kinds = [targets[:1], [path for path in targets if path.parent.name == "segments"], targets[-1:]]
        path = choose.choice(kinds[number % 3])
        kind, data = mutations.damage(contents[path], [contents[target] for target in targets], choose)
        path.write_bytes(data)
        try:
            verdict = judging.judge(run, path, truth)
        except Exception as error:
            failures.append(f"mutation {number}, {kind} of {path.name}: {type(error).__name__}: {error}")
        else:
            counts[f"{path.parent.name if path.parent != run else path.name}: {verdict.word}"] += 1
            slowest = max(slowest, verdict.seconds)
            not_named = [text for text in verdict.refusals if text.startswith("not named")]
            if verdict.word not in ("the same", "refused") or not_named:
                failures.append(
                    f"mutation {number}, {kind} of {path.name}: {verdict.word}; {verdict.differing} {not_named}"
                )
        path.write_bytes(contents[path])
    return counts, failures, slowest


@pytest.mark.parametrize(
    "numbers", [range(50), pytest.param(range(FIRST, LAST), marks=pytest.mark.slow)], ids=["50", "10000"]
)
def test_damaged_file_gives_the_same_data_or_is_named(numbers: range, damaged_run: Path):
    counts, failures, slowest = run_mutations(damaged_run, numbers)
    print(f"{len(numbers):,} mutations: {dict(counts)}; {len(failures)} wrong; slowest {slowest:.2f} s")
    assert not failures, "\n".join(failures[:20])
    assert sum(counts.values()) == len(numbers)
    assert sum(n for word, n in counts.items() if "refused" in word) > 0.5 * len(numbers)
    assert slowest < judging.SLOWEST


def test_reader_without_checksums_returns_other_data(damaged_run: Path, monkeypatch: pytest.MonkeyPatch):
    """The control: the judge notices a reader that does not compare checksums."""
    monkeypatch.setattr(tensor_file, "_structure", lambda about, layout, checksums: 0)
    monkeypatch.setattr(tensor_file.TensorFile, "_mismatches", lambda *arguments: iter(()))
    original = tensor_file.TensorFile.__init__

    def trusting(self: Any, path: Path) -> None:
        monkeypatch.setattr(tensor_file, "_structure", lambda *_: Anything())
        original(self, path)

    monkeypatch.setattr(tensor_file.TensorFile, "__init__", trusting)
    _, failures, _ = run_mutations(damaged_run, range(0, 60))
    assert any("other data" in failure for failure in failures)


class Anything:
    """An object that equals every other object."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # pyright: ignore[reportAssignmentType]


def judged_forgery(run: Path, path: Path, data: bytes, truth: dict[Any, Any]) -> judging.Verdict:
    path.write_bytes(data)
    return judging.judge(run, path, truth)


@pytest.mark.parametrize("name", mutations.INVALID_SEGMENTS)
def test_forged_segment_is_refused_by_name(name: str, damaged_run: Path):
    truth = truth_of(damaged_run)
    for seed in range(1):
        path = random.Random(seed).choice(sorted((damaged_run / "segments").iterdir()))
        data = path.read_bytes()
        forged = mutations.forged(data, mutations.INVALID_SEGMENTS[name], random.Random(seed))
        verdict = judged_forgery(damaged_run, path, forged, truth)
        path.write_bytes(data)
        text = "; ".join(verdict.refusals)
        assert verdict.word == "refused" and str(path) in text and "not named" not in text, (verdict.differing, text)
        assert verdict.seconds < judging.SLOWEST


@pytest.mark.parametrize("name", mutations.INVALID_SERIES)
def test_forged_measure_is_not_used(name: str, damaged_run: Path):
    truth = truth_of(damaged_run)
    path = damaged_run / "measures" / "loss.safetensors"
    forged = mutations.forged(path.read_bytes(), mutations.INVALID_SERIES[name], random.Random(0))
    path.write_bytes(forged)
    contents = judging.read_all(damaged_run, lambda sentence: None)
    assert not any(key[0] == "cached" for key in contents), "a report would show the forged measure"
    assert {key: value for key, value in contents.items() if key[0] != "series"} == {
        key: value for key, value in truth.items() if key[0] not in ("series", "cached")
    }


@pytest.mark.parametrize("name", mutations.INVALID_RECORDS)
def test_forged_record_is_refused(name: str, damaged_run: Path):
    path = damaged_run / "config.json"
    path.write_bytes(mutations.resealed_record(path.read_bytes(), mutations.INVALID_RECORDS[name]))
    with pytest.raises(GrokscopeError):
        Trajectory.open(damaged_run)


def test_copy_that_replaces_the_last_segment_is_named(damaged_run: Path):
    """The copy leaves no visible gap, because the run might have stopped there, and its checksums are valid."""
    truth, paths = truth_of(damaged_run), sorted((damaged_run / "segments").iterdir())
    verdict = judged_forgery(damaged_run, paths[-1], paths[0].read_bytes(), truth)
    assert verdict.word == "refused" and any("is a copy of 000001" in text for text in verdict.refusals)


def test_plausible_forgery_is_not_detected(damaged_run: Path):
    """The control: a checksum is not a signature, so valid numbers with valid checksums are accepted."""
    truth = truth_of(damaged_run)
    path = sorted((damaged_run / "segments").iterdir())[1]

    def forge(metadata: Any, arrays: Any, by_row: Any, choose: random.Random) -> None:
        arrays["checkpoints/embed.W_E"] = -arrays["checkpoints/embed.W_E"]

    verdict = judged_forgery(damaged_run, path, mutations.forged(path.read_bytes(), forge, random.Random(0)), truth)
    assert verdict.word == "other data" and not verdict.refusals
