"""Tests notice at least 95% of the mutants of saving and resuming."""

from pathlib import Path

import mutants
import pytest

import grokscope


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.file)
def test_mutant_changes_one_place_and_names_existing_tests(mutant: mutants.Mutant):
    source = (Path(grokscope.__file__).parent / f"{mutant.file}.py").read_text(encoding="utf-8")
    assert source.count(mutant.old) == 1 and mutant.new != mutant.old
    assert all((mutants.ROOT / path).is_file() for path in mutant.tests)


@pytest.mark.slow
def test_at_least_95_percent_of_mutants_are_killed():
    assert len(mutants.MUTANTS) >= 30
    assert len(mutants.main([])) <= 0.05 * len(mutants.MUTANTS)
