"""The training set of an imported run: indices of any kind, a published draw, or unknown."""

import dataclasses
import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.shared import Command, command_line

from grokscope import Trajectory, gallery, measures, phases, report, tasks
from grokscope.config import RunConfig, TaskConfig
from grokscope.errors import GrokscopeError
from grokscope.interop import train_sets
from grokscope.interop.import_run import import_checkpoints
from grokscope.opened_run import data_digest
from grokscope.store.record import Record
from grokscope.store.run_store import RunStore

pytestmark = pytest.mark.filterwarnings("ignore:.*above chance")
SPLIT_WORDS = re.compile(r"\b(train|test|trained|memorized|generalised)\b")


@pytest.fixture
def original(tiny_run: Path) -> Trajectory:
    return Trajectory.open(tiny_run)


@pytest.fixture
def unsplit(original: Trajectory, tmp_path: Path) -> Trajectory:
    """The tiny run's checkpoints, imported without a training set."""
    path = tmp_path / "all.pt"
    torch.save({"state_dicts": [snapshot.parameters for snapshot in original]}, path)
    return import_checkpoints([path], original.config, "unsplit", tmp_path, steps=original.steps.tolist())


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.uint8], ids=str)
def test_indices_in_the_file_may_have_any_type(dtype: torch.dtype, original: Trajectory, tmp_path: Path):
    train = original.split.train
    for i, indices in enumerate((train.to(dtype), train.tolist(), tuple(train.tolist()))):
        path = tmp_path / "step60.pt"
        torch.save({"model": original.last.parameters, "train_indices": indices}, path)
        imported = import_checkpoints([path], original.config, f"run{i}", tmp_path)
        assert torch.equal(imported.split.train, train) and torch.equal(imported.split.test, original.split.test)
        np.testing.assert_allclose(imported.log["train_loss"][-1], original.log["train_loss"][-1], rtol=1e-5)


def files_with(train: torch.Tensor, operands: torch.Tensor, folder: Path) -> list[Path]:
    """Write the training examples in every format, in the order of --train-indices's documentation."""
    indices, pairs = train.tolist(), [tuple(pair) for pair in operands[train].tolist()]
    torch.save(train, folder / "tensor.pt")
    torch.save({"train_indices": indices, "test_indices": [0]}, folder / "dict.pth")
    torch.save(pairs, folder / "pairs.pth")
    np.save(folder / "array.npy", train.numpy().astype(np.int32))
    (folder / "list.json").write_text(json.dumps(indices))
    (folder / "lines.txt").write_text("\n".join(map(str, indices)) + "\n")
    mask = torch.zeros(len(operands), dtype=torch.bool)
    mask[train] = True
    torch.save(mask, folder / "mask.pt")
    return sorted(path for path in folder.iterdir())


def test_file_of_training_examples_may_have_any_format(original: Trajectory, tmp_path: Path):
    (tmp_path / "indices").mkdir()
    paths = files_with(original.split.train, original.task.operands, tmp_path / "indices")
    assert len(paths) == 7
    for path in paths:
        split = train_sets.split_of_indices(train_sets.read_indices(path), original.task, str(path))
        assert torch.equal(split.train, original.split.train), path


@pytest.mark.parametrize(
    "values",
    [
        [],
        [0, 0],
        [99],
        [-1],
        list(range(49)),
        [0.5],
        [[0, 9]],
        [[0, 1, 2, 3]],
        "01",
        None,
        torch.ones(3, dtype=torch.bool),
    ],
    ids=str,
)
def test_invalid_training_examples_are_refused(values: Any, original: Trajectory):
    with pytest.raises(GrokscopeError, match="FILE: allowed for 'addition': different whole numbers from 0 to 48"):
        train_sets.split_of_indices(values, original.task, "FILE")


def published_draw(p: int, seed: int, fraction: float) -> list[tuple[int, int]]:
    """Return the training pairs as the code of Nanda et al. 2023 draws them."""
    state = random.getstate()
    pairs = [(i, j, p) for i in range(p) for j in range(p)]
    random.seed(seed)
    random.shuffle(pairs)
    random.setstate(state)
    return sorted((i, j) for i, j, _ in pairs[: int(fraction * len(pairs))])


@pytest.mark.parametrize(("p", "seed", "fraction"), [(7, 0, 0.3), (13, 1, 0.7), (113, 598, 0.3)])
def test_random_shuffle_draws_as_the_published_code(p: int, seed: int, fraction: float):
    config = TaskConfig(p=p, train_fraction=fraction)
    task = tasks.build(config)
    split = train_sets.draw(f"random-shuffle:{seed}", config, task)
    assert sorted(map(tuple, task.operands[split.train].tolist())) == published_draw(p, seed, fraction)
    assert len(split.train) + len(split.test) == p * p


@pytest.mark.parametrize("text", ["random-shuffle", "random:1", "random-shuffle:-1", "torch:0", ""])
def test_unknown_draw_is_refused(text: str, original: Trajectory):
    with pytest.raises(GrokscopeError, match=r"allowed: random-shuffle:SEED or grokscope:SEED\."):
        train_sets.draw(text, original.config.task, original.task)


def test_sources_that_differ_are_refused(original: Trajectory, tmp_path: Path):
    path = tmp_path / "step60.pt"
    torch.save({"model": original.last.parameters, "train_indices": original.split.train}, path)
    imported = import_checkpoints([path], original.config, "same", tmp_path, split="grokscope:0")
    assert torch.equal(imported.split.train, original.split.train)
    with pytest.raises(
        GrokscopeError, match=r"train_indices in step60\.pt and --split random-shuffle:0 .* name diff"
    ):
        import_checkpoints([path], original.config, "run", tmp_path, split="random-shuffle:0")


def test_log_of_an_unknown_split_covers_all_equations(unsplit: Trajectory, original: Trajectory):
    assert not unsplit.has_split and unsplit.split_or_none is None
    assert list(unsplit.log.arrays) == ["loss", "accuracy"]
    for name in ("loss", "accuracy"):
        expected = measures.evaluate("loss", original)[name]
        np.testing.assert_allclose(unsplit.log[name], expected, rtol=1e-6)
    assert list(measures.evaluate("loss", unsplit).arrays) == ["loss", "accuracy"]
    with pytest.raises(GrokscopeError, match=r"training set of this run is unknown\. .*--train-indices FILE"):
        unsplit.split  # noqa: B018
    assert unsplit.digest != original.digest and unsplit.thin(2).has_split is False
    assert phases.memorization_step(unsplit.log) is None and phases.stages(unsplit.log) == []


@pytest.mark.parametrize("name", sorted(set(measures.names()) - {"local_learning_coefficient"}))
def test_measure_of_an_unknown_split_names_no_train_set(name: str, unsplit: Trajectory):
    try:
        series = measures.evaluate(name, unsplit.select([0, 60]))
    except GrokscopeError as error:
        assert "training set of this run is unknown" in str(error) or "table" in str(error), error
    else:
        assert not [array for array in series.keys() if SPLIT_WORDS.search(array.replace("_", " "))]  # noqa: SIM118


def test_page_of_an_unknown_split_names_no_train_set(unsplit: Trajectory):
    path = report.write(unsplit)
    page = path.read_text(encoding="utf-8")
    text = re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL)
    named = {" ".join(text[match.start() - 30 : match.end() + 20].split()) for match in SPLIT_WORDS.finditer(text)}
    allowed = ("never trained it", "--train-indices", "a model that has only memorized it")
    assert [words for words in named if not any(phrase in words for phrase in allowed)] == []
    assert "The training set is unknown" in text and "loss over all equations" in text
    payload = json.loads(re.search(r'id="numbers">(.*?)</script>', page, re.DOTALL)[1])  # pyright: ignore
    assert payload["log"].keys() == {"steps", "loss", "accuracy"} and payload["stages"] == []
    assert payload["grid"]["is_train"] is None
    titles = [quantity["title"] for quantity in payload["quantities"]]
    assert not [title for title in titles if SPLIT_WORDS.search(title)]


def test_figures_of_an_unknown_split_show_all_equations(unsplit: Trajectory):
    request = gallery.FigureRequest(unsplit)
    for name in ("losses", "accuracies"):
        lines = [line for axes in gallery.figure(name, request).axes for line in axes.get_lines()]
        assert {line.get_label() for line in lines} == {"all"}
    with pytest.raises(
        GrokscopeError,
        match=r"^The figure 'progress' tells train from test equations\. The training set of .*--split",
    ):
        gallery.figure("progress", request)


def test_liu_phase_of_an_unknown_split_names_the_remedy(unsplit: Trajectory):
    with pytest.raises(GrokscopeError, match=r"^Liu et al\.'s phases compare .* accuracy\. .*--train-indices FILE"):
        phases.liu_phase(unsplit.log)


def test_outliers_need_a_known_split(original: Trajectory, tmp_path: Path):
    torch.save(original.last.parameters, tmp_path / "step60.pt")
    task = dataclasses.replace(original.config.task, outliers=3)
    config = dataclasses.replace(original.config, task=task)
    with pytest.raises(GrokscopeError, match=r"task\.outliers: 3, but the training set is unknown; allowed: 0"):
        import_checkpoints([tmp_path / "step60.pt"], config, "run", tmp_path)


def test_split_of_state_dicts_in_memory_may_be_unknown(original: Trajectory):
    unsplit = Trajectory.from_state_dicts(original.config, {60: original.last.parameters}, "unknown")
    assert not unsplit.has_split and "unknown training set" in unsplit._repr_html_()
    with pytest.raises(GrokscopeError, match="split: 'none'"):
        Trajectory.from_state_dicts(original.config, {60: original.last.parameters}, "none")


def test_import_of_grokscope_0_2_0_has_an_unknown_split(original: Trajectory, unsplit: Trajectory):
    """Version 0.2.0 drew a split from the config if the files named none, and logged its losses."""
    assert unsplit.path is not None
    record, config = Record.read(unsplit.path), original.config
    drawn = tasks.draw_split(original.task, config.task.train_fraction, config.split_seed)
    event = {name: record.imported[name] for name in ("event", "files", "answers_only")}  # pyright: ignore
    old = Record(record.config, {}, data_digest(original.task, drawn), (event,))
    (unsplit.path / "segments" / "000001.safetensors").unlink()
    old.write(unsplit.path)
    store = RunStore(unsplit.path)
    arrays = [{name: tensor.numpy() for name, tensor in snapshot.parameters.items()} for snapshot in original]
    rows = [
        (float(step), *(float(original.log[name][i]) for name in original.log.arrays))
        for i, step in enumerate(original.log.steps)
    ]
    store.commit(original.steps.tolist(), arrays, coverage=(-1, 60), log=rows)  # pyright: ignore[reportArgumentType]
    reopened = Trajectory.open(unsplit.path)
    assert not reopened.has_split and list(reopened.log.arrays) == ["loss", "accuracy"]
    expected = measures.evaluate("loss", original)["loss"]
    np.testing.assert_allclose(reopened.log["loss"][reopened.log.steps % 10 == 0], expected, rtol=1e-5)


def test_command_prints_an_unknown_split(
    unsplit: Trajectory, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    grokscope: Command = command_line(capsys, monkeypatch, tmp_path / "here")
    run = str(unsplit.path)
    rows = [json.loads(line) for line in grokscope("log", run)[1].splitlines()]
    assert [set(row) for row in rows] == [{"step", "loss_function", "loss", "accuracy"}] * 7 and rows[0]["step"] == 0
    status, output, _ = grokscope("watch", run, "--terminal", "--until-end")
    assert status == 0 and "training set unknown" in output and not SPLIT_WORDS.search(output)
    settings = ["--task.p", "7", "--task.train-fraction", "0.6", "--model.act-fn", "relu"]
    flags = [*settings, "--steps", *map(str, unsplit.steps.tolist())]
    status, output, _ = grokscope("import", tmp_path / "all.pt", *flags, "--run", "here")
    assert status == 0 and "The training set is unknown; name it with --train-indices FILE" in output
    assert "at the end: softmax loss " in output and "over all equations" in output
    np.save("train.npy", np.arange(20))
    status, output, errors = grokscope("import", tmp_path / "all.pt", *flags, "--train-indices", "train.npy")
    assert status == 0 and "memorized at step" in output
    assert len(Trajectory.open("checkpoints/addition").split.train) == 20


def test_train_fraction_of_a_drawn_split_is_the_configs(original: Trajectory):
    config = RunConfig(task=dataclasses.replace(original.config.task, train_fraction=0.5))
    assert len(train_sets.draw("random-shuffle:3", config.task, original.task).train) == 24
    assert len(train_sets.draw("grokscope:3", config.task, original.task).train) == 24
