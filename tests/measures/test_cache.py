"""Series saved with a run: when a saved series is returned, and when the measure is evaluated again."""

import dataclasses
import shutil
from types import SimpleNamespace

import pytest
from support.measure_contract import assert_same, options_of

import grokscope
from grokscope import Trajectory, measures, plugins
from grokscope.disk import tensor_file
from grokscope.errors import GrokscopeError
from grokscope.series import Series


@pytest.fixture
def evaluations(monkeypatch) -> list[str]:
    """The names of the measures that are evaluated rather than read from a file."""
    names, evaluate = [], measures.MeasureRequest.evaluate

    def counted(request):
        names.append(request.name)
        return evaluate(request)

    monkeypatch.setattr(measures.MeasureRequest, "evaluate", counted)
    return names


@pytest.fixture
def redeclare(monkeypatch):
    """The function that changes the declaration of the measure `loss`."""

    def change(**changes):
        measure = plugins.load("measures", "loss")
        monkeypatch.setattr(measure, "declaration", dataclasses.replace(measure.declaration, **changes))

    return change


def test_saved_series_is_returned(run_copy, evaluations):
    first = measures.saved("loss", Trajectory.open(run_copy))
    assert_same(measures.saved("loss", Trajectory.open(run_copy)), first)
    assert evaluations == ["loss"]
    assert_same(Series.load(measures.folder(run_copy) / "loss.safetensors"), first)


def test_costly_measure_is_thinned_unless_more_steps_are_saved(run_copy, evaluations, redeclare):
    redeclare(n_checkpoints=3)
    trajectory = Trajectory.open(run_copy)
    assert measures.saved("loss", trajectory).steps.tolist() == trajectory.thin(3).steps.tolist()
    assert len(measures.saved("loss", trajectory, thin=5)) == 5
    assert len(measures.saved("loss", trajectory)) == 5
    assert len(measures.saved("loss", trajectory, thin=2)) == 2
    assert len(measures.saved("loss", trajectory)) == 5, "fewer checkpoints never replace more"
    assert len(evaluations) == 3


def test_longer_run_is_measured_again(run_copy, evaluations, redeclare):
    """The saved series has as many steps as requested, but not the last one."""
    redeclare(n_checkpoints=2)
    measures.saved("loss", Trajectory.open(run_copy).select([0, 10]))
    assert measures.saved("loss", Trajectory.open(run_copy)).steps[-1] == 60
    assert len(evaluations) == 2


def test_series_with_other_options_is_not_returned(run_copy, evaluations):
    trajectory = Trajectory.open(run_copy)
    measures.saved("embedding", trajectory)
    measures.evaluate("embedding", trajectory, seed=5).save(measures.folder(run_copy) / "embedding.safetensors")
    assert measures.saved("embedding", trajectory).options == options_of("embedding")
    assert len(evaluations) == 3


def test_series_with_options_are_saved_next_to_the_default(run_copy, evaluations):
    trajectory = Trajectory.open(run_copy)
    series = [measures.saved("embedding", trajectory, seed=seed) for seed in (0, 1, 2, 1, 0)]
    assert evaluations == ["embedding"] * 3
    assert_same(series[1], series[3])
    assert_same(series[0], series[4])
    assert series[1].options == {**options_of("embedding"), "seed": 1}
    assert len(list(measures.folder(run_copy).iterdir())) == 3
    assert Series.load(measures.folder(run_copy) / "embedding.safetensors").options["seed"] == 0


def test_equal_options_share_one_saved_series(run_copy, evaluations):
    trajectory = Trajectory.open(run_copy)
    for options in ({}, {"seed": 0}, {"n_components": 10}):
        measures.saved("embedding", trajectory, **options)
    for tolerance in (1, 1.0):
        measures.saved("sharpness", trajectory, 1, tolerance=tolerance)
    assert evaluations == ["embedding", "sharpness"]


def test_tuple_option_is_equal_after_a_file(run_copy, evaluations, monkeypatch):
    def repeated(trajectory, *, several: tuple[str, ...] = ("a",)):
        return Series("several", trajectory.steps, {"x": trajectory.steps * len(several)})

    monkeypatch.setitem(plugins._registered("measures"), "several", SimpleNamespace(load=lambda: repeated))
    trajectory = Trajectory.open(run_copy)
    for _ in range(2):
        measures.saved("several", trajectory)
        assert measures.saved("several", trajectory, several=("a", "b"))["x"][-1] == 120
    assert len(evaluations) == 2


def test_fewer_checkpoints_never_replace_more(run_copy, evaluations):
    trajectory = Trajectory.open(run_copy)
    whole = measures.saved("loss", trajectory)
    few = [measures.saved("loss", trajectory, thin=2) for _ in range(2)]
    assert_same(*few)
    assert len(few[0]) == 2
    assert_same(measures.saved("loss", trajectory), whole)
    assert_same(Series.load(measures.folder(run_copy) / "loss.safetensors"), whole)
    assert len(evaluations) == 2


def test_thinned_series_of_a_longer_run_replaces_nothing(run_copy, evaluations):
    """`--thin 2` of the longer run once replaced the longer series."""
    many = measures.keep(measures.evaluate("loss", Trajectory.open(run_copy)[:-1]), Trajectory.open(run_copy))
    assert len(measures.saved("loss", Trajectory.open(run_copy), thin=2)) == 2
    assert_same(Series.load(measures.folder(run_copy) / "loss.safetensors"), many)
    assert len(measures.saved("loss", Trajectory.open(run_copy), thin=2)) == 2
    assert len(evaluations) == 2


def test_new_gap_is_not_hidden_by_a_saved_series(run_copy, evaluations, monkeypatch):
    """A lost segment without checkpoints leaves all checkpoints equal."""
    assert measures.saved("loss", Trajectory.open(run_copy))["gaps"].tolist() == []
    later = Trajectory.open(run_copy)
    monkeypatch.setattr(Trajectory, "gaps", [(3, 5)])
    assert measures.saved("loss", later)["gaps"].tolist() == [[3, 5]]
    assert measures.saved("loss", later)["gaps"].tolist() == [[3, 5]]
    assert evaluations == ["loss"] * 2


def test_thinning_to_0_is_rejected(run_copy):
    """0 once meant all checkpoints."""
    with pytest.raises(GrokscopeError, match=r"thin\(0\)"):
        measures.saved("loss", Trajectory.open(run_copy), thin=0)


def test_new_version_of_the_formula_is_measured_again(run_copy, evaluations, redeclare):
    trajectory = Trajectory.open(run_copy)
    assert measures.saved("loss", trajectory).version == 1
    redeclare(version=2)
    assert [measures.saved("loss", trajectory).version for _ in range(2)] == [2, 2]
    assert len(evaluations) == 2


def test_file_without_a_version_has_version_1(run_copy, evaluations, monkeypatch):
    write = tensor_file.write

    def write_without_version(path, arrays, about):
        write(path, arrays, {key: value for key, value in about.items() if key != "version"})

    with monkeypatch.context() as patch:
        patch.setattr(tensor_file, "write", write_without_version)
        measures.saved("loss", Trajectory.open(run_copy))
    assert measures.saved("loss", Trajectory.open(run_copy)).version == 1
    assert len(evaluations) == 1


def test_damaged_series_is_measured_again(run_copy, evaluations):
    first = measures.saved("loss", Trajectory.open(run_copy))
    path = measures.folder(run_copy) / "loss.safetensors"
    path.write_bytes(path.read_bytes()[:-7] + b"damaged")
    assert_same(measures.saved("loss", Trajectory.open(run_copy)), first)
    assert len(evaluations) == 2
    assert_same(Series.load(path), first)


def test_series_of_another_run_is_not_returned(run_copy, tiny_config, tmp_path, evaluations):
    second_run = grokscope.train(dataclasses.replace(tiny_config, init_seed=1), "other", tmp_path)
    measures.saved("loss", Trajectory.open(run_copy))
    shutil.copytree(measures.folder(run_copy), measures.folder(tmp_path / "other"))
    assert measures.saved("loss", second_run).digest == second_run.digest
    assert len(evaluations) == 2


def test_trajectory_in_memory_cannot_save(plant):
    with pytest.raises(GrokscopeError, match="in memory"):
        measures.saved("loss", plant({0: {}}))
