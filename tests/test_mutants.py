"""Of the mutants of saving and resuming at least 95% are noticed."""

from pathlib import Path

import mutants
import pytest

import grokscope


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.file)
def test_a_mutant_changes_one_place_and_names_tests_that_there_are(mutant: mutants.Mutant):
    source = (Path(grokscope.__file__).parent / f"{mutant.file}.py").read_text(encoding="utf-8")
    assert source.count(mutant.old) == 1 and mutant.new != mutant.old
    assert all((mutants.ROOT / one).is_file() for one in mutant.tests)


@pytest.mark.slow
def test_of_all_mutants_95_percent_are_killed():
    assert len(mutants.MUTANTS) >= 30
    assert len(mutants.main([])) <= 0.05 * len(mutants.MUTANTS)
