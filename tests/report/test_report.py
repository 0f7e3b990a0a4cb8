"""The report: its words, its numbers, its commands, and that nothing hostile runs; `test_page` looks at it."""

import base64
import dataclasses
import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.pages import HOSTILE, Page, numbers, read, unpacked, write_hostile

import grokscope
from grokscope import cli, measures, report, training
from grokscope.algebra.tables import tabulate
from grokscope.config import TaskConfig
from grokscope.errors import GrokscopeError
from grokscope.report import data, encoding, page, quantities, sentences
from grokscope.series import Series
from grokscope.store.record import Record
from grokscope.store.run_store import RunStore
from grokscope.trajectory import Trajectory


def assert_harmless(text: str) -> None:
    """Assert that a page runs its own script alone and asks for nothing outside itself."""
    page = Page(text)
    assert {tag for tag, _ in page.elements}.isdisjoint(
        {"iframe", "object", "embed", "link", "base", "form", "audio", "video", "img"}
    )
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") or name in ("style", "srcset", "src") for name in attributes)
        assert attributes.get("href", "#").startswith("#")
        assert not (tag == "meta" and attributes.get("http-equiv", "").lower() == "refresh")
    assert "url(" not in page.text["style"] and "@import" not in page.text["style"]
    (policy,) = [a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert len(scripts) == 1 and len(re.findall(r"<script\b", text)) == 2
    for kind, content in (("script", scripts[0]), ("style", page.text["style"])):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in policy


@pytest.fixture(scope="module")
def run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny run with its report."""
    copy = shutil.copytree(tiny_run, tmp_path_factory.mktemp("reported") / "tiny")
    assert report.write(Trajectory.open(copy)) == copy / "report.html"
    return copy


def test_the_page_is_whole_and_harmless(run):
    assert_harmless((run / "report.html").read_text(encoding="utf-8"))
    assert {"losses", "embedding", "planes", "spectrum", "pairs", "heads", "measure-1"} <= {
        attributes.get("id") for _, attributes in read(run / "report.html").elements
    }


def test_what_a_report_needs_is_measured_and_kept(run):
    for name, n in (("embedding", 7), ("weight_norm", 7), ("sharpness", 7), ("fourier", 7), ("progress", 7)):
        assert len(Series.load(run / "measures" / f"{name}.safetensors")) == n


def test_the_page_bears_the_config_the_digest_and_the_version(run):
    trajectory = Trajectory.open(run)
    page = read(run / "report.html")
    assert trajectory.digest in page.text["code"]
    assert page.text["h1"] == "tiny" and "tiny" in page.text["title"]
    for said in (f"grokscope {grokscope.__version__}", "a + b mod 7", "29 of", "49 equations", "7 checkpoints"):
        assert said in re.sub(r"\s+", " ", page.text["body"])


def test_every_finding_is_on_the_page(run):
    trajectory = Trajectory.open(run)
    series = report.usual(measures.kept(trajectory), trajectory)
    page = read(run / "report.html")
    for finding in report.findings(trajectory.log, series):
        assert finding.name in page.text["dt"]
        assert finding.value in page.text["dd"] and finding.beside in page.text["small"]
    assert report.summary(trajectory.log) in page.text["p"]
    for sentence in report.details(trajectory.log, series):
        assert sentence in page.text["li"]


def test_the_payload_holds_the_numbers_that_were_measured(run):
    """As the page's script reads them; quantised to half of a step."""
    trajectory, found = Trajectory.open(run), numbers(run / "report.html")
    series = report.usual(measures.kept(trajectory), trajectory)
    assert unpacked(found["steps"]).tolist() == trajectory.steps.tolist()
    for name, array in trajectory.log.arrays.items():
        np.testing.assert_allclose(unpacked(found["log"][name]), array, rtol=1e-6)
    assert found["names"] is None
    cloud, plane = found["clouds"], found["clouds"]["planes"][1]
    points = series["embedding"]["frequency_planes"][:, 0]
    np.testing.assert_allclose(unpacked(plane["points"]), points, atol=plane["points"]["scale"] * 0.51)
    assert cloud["labels"] == [str(token) for token in series["embedding"]["tokens"]]
    grid, losses = found["grid"], series["example_loss"]
    np.testing.assert_allclose(unpacked(grid["log_loss"]), np.log10(losses["example_loss"]), atol=0.03)
    bits = np.unpackbits(unpacked(grid["right"]), axis=1, bitorder="little")[:, : len(trajectory.task.inputs)]
    assert np.array_equal(bits.astype(bool), losses["is_right"])
    assert np.flatnonzero(unpacked(grid["is_train"])).tolist() == trajectory.split.train.tolist()
    by_key = {one["key"]: one for one in found["quantities"]}
    (line,) = by_key["sharpness.hessian_trace"]["lines"]
    np.testing.assert_allclose(unpacked(line["values"]), series["sharpness"]["hessian_trace"], rtol=1e-6)
    np.testing.assert_allclose(unpacked(line["error"]), series["sharpness"]["hessian_trace_stderr"], rtol=1e-6)
    (line,) = by_key["embedding.circularity"]["lines"]
    np.testing.assert_allclose(unpacked(line["shuffled"]), series["embedding"]["circularity_shuffled"], rtol=1e-6)
    assert line["untrained"] == pytest.approx(float(series["embedding"]["circularity_initialization"]))


def test_a_second_report_is_the_same_and_measures_nothing(run, monkeypatch, tmp_path):
    copy = shutil.copytree(run, tmp_path / "tiny")
    first = (run / "report.html").read_bytes()
    monkeypatch.setattr(measures, "evaluate", lambda *_, **__: pytest.fail("was measured again"))
    assert report.write(Trajectory.open(copy)).read_bytes() == first


@pytest.mark.slow
def test_a_report_needs_no_matplotlib(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "tiny")
    code = (
        "import sys; from grokscope import cli; cli.main(['report', sys.argv[1]]);"
        "assert 'matplotlib' not in sys.modules and 'grokscope.report' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(copy)], check=True, capture_output=True)


def test_what_was_saved_of_other_measures_is_on_the_page_under_its_options(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "tiny")
    trajectory = Trajectory.open(copy)
    measures.saved("parallelograms", trajectory)
    measures.saved("loss", trajectory, 3)
    measures.saved("embedding", trajectory, seed=3)
    (copy / "measures" / "damaged.safetensors").write_bytes(b"damaged")
    keys = {one["key"] for one in numbers(report.write(trajectory))["quantities"]}
    assert {"parallelograms.rqi", "loss.accuracy", "embedding.circularity", "embedding (seed=3).circularity"} <= keys


def hostile_name() -> str:
    return HOSTILE.replace("/", "∕")  # A folder's name can hold anything but a slash.


@pytest.fixture(scope="module")
def hostile(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report whose every text is hostile: the run's name, formula, origin, environment, a measure and its keys."""
    folder = shutil.copytree(run, tmp_path_factory.mktemp("hostile") / hostile_name())
    return write_hostile(folder)


def test_hostile_names_and_texts_are_shown_and_not_obeyed(hostile):
    text = hostile.read_text(encoding="utf-8")
    assert_harmless(text)
    page = Page(text)
    assert page.text["h1"] == hostile_name()
    assert page.text["header"].count(HOSTILE) == 2, "the formula and the run that it was forked from"
    assert hostile_name() in page.text["p"], "the sentence on a damaged segment names its path"
    assert HOSTILE in page.text["td"] and HOSTILE in page.text["th"]
    assert any(one["group"].startswith(HOSTILE) for one in numbers(hostile)["quantities"])


def test_what_is_damaged_or_lost_is_said(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "tiny")
    segments = sorted((copy / "segments").glob("*.safetensors"))
    segments[2].write_bytes(b"damaged")
    trajectory = Trajectory.open(copy)
    path = report.write(trajectory)
    ((first, last),) = trajectory.gaps
    assert f"Steps {first} to {last} are lost" in read(path).text["p"]
    assert segments[2].name in read(path).text["p"]
    assert numbers(path)["gaps"] == [[first, last]]


def test_a_trajectory_in_memory_has_no_report(tiny_config):
    start = Trajectory.from_state_dicts(tiny_config, {0: _initial(tiny_config)})
    with pytest.raises(GrokscopeError, match="in memory"):
        report.write(start)


def _initial(config):
    from grokscope import tasks
    from grokscope.model import transformer

    return transformer.build(config.model, tasks.build(config.task)).initialize(0)


def test_a_run_with_its_first_checkpoint_alone_has_a_report(run, tmp_path):
    """A report may be asked for while a run trains, or of one that was killed in its first minute."""
    copy = shutil.copytree(run, tmp_path / "young")
    for segment in sorted((copy / "segments").glob("*.safetensors"))[1:]:
        segment.unlink()
    assert RunStore(copy).steps.tolist() == [0]
    said = re.sub(r"\s+", " ", read(report.write(Trajectory.open(copy))).text["body"])
    assert "1 checkpoint " in said and "trained to step 0 of 60" in said


def test_a_group_without_a_circle_has_a_report_without_frequencies(tiny_config, tmp_path):
    config = dataclasses.replace(
        tiny_config, task=TaskConfig("composition", group="S3"), n_steps=10, checkpoints="every 5"
    )
    path = report.write(grokscope.train(config, "s3", tmp_path))
    assert_harmless(path.read_text(encoding="utf-8"))
    found = numbers(path)
    assert found["spectra"] == [] and len(found["clouds"]["planes"]) == 1
    assert "(0 1 2)" in found["clouds"]["labels"] and len(set(found["clouds"]["classes"])) == 3
    assert found["names"] == found["clouds"]["labels"]
    assert "circularity" not in read(path).text["dl"]
    shown = {one["key"]: one for one in found["quantities"]}
    names = ["standard", "sign"]
    for key, labels in (
        ("losses", ["train loss", "restricted loss", "excluded loss"]),
        ("embedding_shares", names),
        ("n_neurons_of_representation", names),
    ):
        assert [line["label"] for line in shown[f"representations.{key}"]["lines"]] == labels
    # Of the whole group's subgroups but the trivial one and itself: of order 2 and 3.
    assert len({line["label"] for line in shown["representations.embedding_left_silhouette"]["lines"]}) == 2


def test_a_group_that_is_large_has_its_representations_left_to_whom_asks(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "_LARGEST_GROUP", 5)
    config = dataclasses.replace(tiny_config, task=TaskConfig("composition", group="S3"), n_steps=5)
    report.write(grokscope.train(config, "s3", tmp_path))
    assert not list((tmp_path / "s3" / "measures").glob("representations*"))


def test_columns_bear_their_names_and_what_spans_decades_is_on_a_logarithmic_axis(tiny_run):
    trajectory = Trajectory.open(tiny_run).thin(3)
    found = [measures.evaluate(name, trajectory) for name in ("weight_norm", "numerics", "hessian", "neurons")]
    shown = {one.key: one for one in quantities.quantities(found)}
    parts = ["embedding", "positions", "attention", "mlp", "unembedding"]
    for key, labels in (
        ("weight_norm.component_norms", parts),
        ("hessian.block_traces", parts),
        ("numerics.component_naive_loss_cosines", parts),
        ("numerics.gradient_norm", ["bfloat16", "float32", "float64"]),
        ("neurons.mean_neuron_share", ["mean neuron share"]),
    ):
        assert [line["label"] for line in shown[key].lines] == labels
    assert shown["numerics.test_margins"].lines[4]["label"] == "50%"
    wide = Series("mine", np.arange(3), {"wide": np.array([1.0, 2.0, 5e3]), "signed": np.array([-1.0, 1.0, 5e3])})
    assert [one.logarithmic for one in quantities.quantities([wide])] == [True, False]


def test_what_cannot_be_measured_is_said_and_the_rest_is_shown(run, tmp_path, monkeypatch):
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "measures" / "sharpness.safetensors").unlink()
    saved = measures.saved

    def refusing(name: str, *given: Any, **options: Any) -> Series:
        if name == "sharpness":
            raise GrokscopeError("A product with the Hessian is not finite.")
        return saved(name, *given, **options)

    monkeypatch.setattr(measures, "saved", refusing)
    page = read(report.write(Trajectory.open(copy)))
    assert "The measure sharpness is not on this page: A product with the Hessian is not finite." in page.text["p"]
    assert "weight norm" in page.text["dl"] and "Hessian" not in page.text["dl"]


@pytest.mark.parametrize(
    "odd",
    [lambda one: one[..., None], lambda one: one.reshape(len(one), -1)[:, :1], lambda one: np.full_like(one, np.nan)],
)
def test_a_saved_measure_with_odd_numbers_gives_a_page_or_one_error(odd, run, tmp_path):
    """As one that came with a run of somebody else's, its checksums right."""
    for name in Series.load(run / "measures" / "embedding.safetensors").arrays:
        copy = shutil.copytree(run, tmp_path / name)
        path = copy / "measures" / "embedding.safetensors"
        series = Series.load(path)
        if np.issubdtype(series[name].dtype, np.floating):
            dataclasses.replace(series, arrays={**series.arrays, name: odd(series[name])}).save(path)
        try:
            assert_harmless(report.write(Trajectory.open(copy)).read_text(encoding="utf-8"))
        except GrokscopeError as error:
            assert str(copy / "measures") in str(error)


def test_arrays_are_packed_as_they_are_and_quantised_to_half_a_step():
    values = np.random.default_rng(0).normal(size=(5, 3))
    assert np.array_equal(unpacked(encoding.packed(values)), values.astype(np.float32))
    whole = np.array([[0, -7], [2**31 - 1, 5]])
    assert np.array_equal(unpacked(encoding.packed(whole)), whole)
    for n_bits in (8, 16):
        packed = encoding.quantised(values, n_bits)
        assert packed["type"] == f"u{n_bits // 8}"
        assert np.abs(unpacked(packed) - values).max() <= packed["scale"] * 0.5001
    assert unpacked(encoding.quantised(np.full(4, 2.5))).tolist() == [2.5] * 4
    odd = np.array([1.0, np.nan, np.inf])
    np.testing.assert_array_equal(unpacked(encoding.quantised(odd)), odd)


def test_frames_hold_the_ends_and_no_more_numbers_than_allowed():
    assert data.n_frames(10, 1000) == 100 and data.n_frames(100, 20_000) == 200
    assert data.n_frames(1, 10**9) == 600 and data.n_frames(1, 10**9, n_max=60) == 60
    assert data.n_frames(10**9, 1000) == data.n_frames(0, 0) == 2


def test_a_long_log_keeps_its_extremes():
    n = 50_000
    spiked = {name: np.random.default_rng(i).uniform(1, 2, n) for i, name in enumerate(LOG_NAMES)}
    spiked["train_loss"][31_234] = 99.0
    spiked["test_accuracy"][777] = -1.0
    kept = data.kept_rows(Series("log", np.arange(n), spiked))
    assert {0, 777, 31_234, n - 1} <= set(kept.tolist()) and len(kept) <= 4_000
    assert (np.diff(kept) > 0).all()
    assert data.kept_rows(Series("log", np.arange(9), {name: np.ones(9) for name in LOG_NAMES})).tolist() == list(
        range(9)
    )


LOG_NAMES = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")


def test_the_numbers_cannot_leave_their_script():
    text = page._json({"</script>": "<!-- & \u2028"})
    assert not set(text) & set("<>&\u2028") and json.loads(text) == {"</script>": "<!-- & \u2028"}


def test_families_of_a_few_curves_are_drawn_together_and_many_not_at_all():
    steps = np.array([0, 1])
    series = Series(
        "made_up",
        steps,
        {"excluded_loss_by_frequency": np.ones((2, 2)), "many": np.ones((2, 400)), "pictures": np.ones((2, 3, 3))},
        {"key_frequencies": np.array([4, 17])},
    )
    (found,) = quantities.quantities([series])
    assert [line["label"] for line in found.lines] == ["frequency 4", "frequency 17"]


def log(train: list[float], test: list[float]) -> Series:
    arrays = {
        "train_loss": np.geomspace(4.123, 2.5e-7, len(train)),
        "test_loss": np.array([*np.linspace(4, 12.3456, len(train) - 1), 3.25e-4]),
        "train_accuracy": np.array(train),
        "test_accuracy": np.array(test),
    }
    return Series("log", np.arange(len(train)) * 100, arrays, {"gaps": np.empty((0, 2), np.int64)})


def measured() -> dict[str, Series]:
    steps = np.array([0, 200, 400])
    embedding = {
        "circularity": np.array([0.21, 0.5, 0.98765]),
        "circularity_shuffled": np.array([0.2, 0.2, 0.1234]),
        "key_frequency_share": np.array([0.11, 0.5, 0.9876]),
        "key_frequency_share_shuffled": np.array([0.3, 0.3, 0.3333]),
    }
    constants = {
        "key_frequencies": np.array([4, 17]),
        "frequencies": np.arange(1, 30),
        "circularity_initialization": np.array(0.2222),
    }
    return {
        "embedding": Series("embedding", steps, embedding, constants),
        "weight_norm": Series("weight_norm", steps, {"weight_norm": np.array([50.04, 71.26, 33.33])}),
        "sharpness": Series("sharpness", steps, {"sharpness": np.array([12.0, 345.6, 0.0123])}),
    }


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0, "0"), (17.94, "17.9"), (0.000444, "0.000444"), (3.654e-5, "3.65·10⁻⁵"), (-1.2e17, "-1.2·10¹⁷")],
)
def test_numbers_are_written_as_by_hand(value: float, said: str):
    assert sentences.written(value) == said


def test_findings_are_the_numbers_of_the_log_and_the_measures():
    found = {one.name: (one.value, one.beside) for one in report.findings(GROKKED, measured())}
    assert found["memorized (train accuracy ≥ 99%)"] == ("step 100", "not yet at step 0")
    assert found["generalised (test accuracy ≥ 99%)"] == ("step 300", "not yet at step 200")
    assert found["final train loss"] == ("2.5·10⁻⁷ nats", "at the start 4.12")
    assert found["final test loss"] == ("0.000325 nats", "highest 12.35")
    assert found["final test accuracy"] == ("99.50%", "highest 99.90%")
    assert found["final weight norm"] == ("33.3", "at the start 50, highest 71.3")
    assert found["final circularity of PCs 1–4"] == ("0.988", "untrained 0.222, shuffled 0.123")
    assert found["key frequencies of the embedding"] == ("4, 17", "98.8% of variance; shuffled 33.3%")
    value, beside = found["final top Hessian eigenvalue"]
    assert value == "0.0123" and "start 12" in beside and "346 at step 200" in beside


GROKKED = log([0.1, 1.0, 1.0, 1.0, 1.0], [0.0, 0.1, 0.5, 0.999, 0.995])


def test_what_goes_on_is_not_spoken_of_as_if_it_had_ended():
    early = log([0.1, 0.2, 0.3, 0.4, 0.5], [0.0] * 5)
    said = report.summary(early, n_steps=1_000)
    assert "by step 400 of 1,000" in said and "too early" in said and "no grokking" not in said
    assert "by step 400 of 1,000" in report.summary(log([0.1, 1, 1, 1, 1], [0.0] * 5), n_steps=1_000)
    found = {one.name: one.value for one in report.findings(early, measured(), n_steps=1_000)}
    assert found["memorized (train accuracy ≥ 99%)"] == "not yet"
    assert "present train loss" in found and not any("final" in name for name in found)
    assert report.summary(early, n_steps=400) == report.summary(early)


def test_frequencies_that_do_not_stand_out_are_not_listed():
    embedding = measured()["embedding"]
    most = {"key_frequencies": np.arange(1, 17), "frequencies": np.arange(1, 30)}
    series = {"embedding": dataclasses.replace(embedding, constants={**embedding.constants, **most})}
    (said,) = report.details(GROKKED, series)
    assert "no frequency of the embedding stands out: 16 of 29" in said and "15, 16" not in said
    found = {one.name: one.value for one in report.findings(GROKKED, series)}
    assert found["key frequencies of the embedding"] == "none stands out"


def test_what_may_have_happened_before_the_log_begins_is_said_to_be_so():
    """A fork's log begins where it left its origin."""
    fork = Series("log", GROKKED.steps + 1_000, {**GROKKED.arrays, "train_accuracy": np.ones(5)})
    found = {one.name: (one.value, one.beside) for one in report.findings(fork, {})}
    assert found["memorized (train accuracy ≥ 99%)"] == ("by step 1,000", "or before: its log begins there")
    top = Series("sharpness", fork.steps[[0, -1]], {"sharpness": np.array([2.0, 1.0])})
    assert "near memorization" not in report.details(fork, {"sharpness": top})[-1]


@pytest.mark.parametrize(
    ("train", "test", "said", "unsaid"),
    [
        ([0.1, 1, 1, 1, 1], [0, 0, 0, 1, 1], ["by step 100", "at step 300", "3 times", "grokked"], ["not"]),
        ([0.1, 0.5, 1, 1, 1], [0, 0, 0, 1, 1], ["step 200", "step 300", "1.5 times", "hardly a delay"], ["grokked"]),
        ([0.1, 1, 1, 1, 1], [0, 0, 0.5, 0.5, 0.123], ["by step 100", "has not generalised", "12.3%"], ["grokked"]),
        ([0.1, 0.5, 0.5, 0.5, 0.5], [0, 0, 0, 0, 0], ["not memorized", "400 steps"], ["generalised"]),
        ([0.1, 0.5, 1, 1, 1], [0, 0.5, 1, 1, 1], ["by step 200", "no delay"], ["grokked"]),
        ([1, 1, 1, 1, 1], [0, 0, 0, 1, 1], ["by step 0", "at step 300"], ["inf", "nan"]),
    ],
)
def test_the_summary_says_what_happened(train, test, said, unsaid):
    summary = report.summary(log(train, test))
    assert all(one in summary for one in said), summary
    assert not any(one in summary for one in unsaid), summary


def test_the_summary_of_a_fork_does_not_count_from_a_step_it_never_saw():
    summary = report.summary(Series("log", GROKKED.steps + 2_000, GROKKED.arrays))
    assert "begins at step 2,000" in summary and "generalised by step 2,300" in summary
    assert "times as late" not in summary


def test_details_say_what_was_measured_and_nothing_else():
    circle, sharpness = report.details(GROKKED, measured())
    assert "2 of 29 frequencies hold 98.8%" in circle and "against 11.0%" in circle and circle.endswith("4, 17.")
    assert "12 (at the first, step 0) → 346 (highest, step 200) → 0.0123 (at the last, step 400)" in sharpness
    assert report.details(GROKKED, {}) == []
    near = Series("sharpness", np.array([0, 110, 310, 400]), {"sharpness": np.array([1.0, 9.0, 3.0, 2.0])})
    (said,) = report.details(GROKKED, {"sharpness": near})
    assert "9 (highest and near memorization, step 110) → 3 (near generalisation, step 310)" in said


def made_again(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run the commands that a page shows, in a folder of their own, and return the run that the last one makes."""
    found = report.again(Record.read(path), path.name)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    if found.file:
        Path(found.file_name).write_text(found.file, encoding="utf-8")
    for command in found.commands:
        program, *arguments = shlex.split(command)
        assert program == "grokscope"
        cli.main(arguments)
    return Path("checkpoints") / f"{path.name}-again"


@pytest.mark.parametrize("kind", ["plain", "table", "fork", "lengthened"])
def test_the_commands_on_the_page_make_the_run_again(kind, tiny_config, tmp_path, monkeypatch, capsys):
    config = dataclasses.replace(tiny_config, n_steps=20, checkpoints="every 5", batch_size=7, residual_dropout=0.1)
    if kind == "table":
        task = TaskConfig("table", table=tabulate(lambda a, b: (a * b + 1) % 17, 17), train_fraction=0.6)
        config = dataclasses.replace(config, task=task, batch_size=None)
    training.train(config, "one", tmp_path)
    made = tmp_path / "one"
    if kind == "lengthened":
        training.resume(made, 30)
    elif kind == "fork":
        slower = dataclasses.replace(config, n_steps=25, optimizer=dataclasses.replace(config.optimizer, lr=1e-3))
        grokscope.fork(made, 10, slower, "two", tmp_path)
        made = tmp_path / "two"
    again = made_again(made, tmp_path, monkeypatch)
    assert Trajectory.open(again).digest == Trajectory.open(made).digest
    capsys.readouterr()


def test_a_preset_is_made_again_by_its_name_alone():
    record = Record(grokscope.presets.get("quick"), {}, "")
    assert report.again(record, "demo").commands == ("grokscope train quick --run demo-again",)
    assert report.again(record, "a b").commands == ("grokscope train quick --run again",)
