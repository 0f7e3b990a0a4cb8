"""Writing a report: what it measures, what it reuses, and what it refuses."""

import dataclasses
import errno
import shutil
import subprocess
import sys

import numpy as np
import pytest
from support.pages import assert_harmless, read_page, read_payload

import grokscope
from grokscope import measures, report, tasks
from grokscope.config import TaskConfig
from grokscope.disk import atomic
from grokscope.errors import GrokscopeError
from grokscope.model import families
from grokscope.series import Series
from grokscope.trajectory import Trajectory


def test_report_measures_and_saves_what_it_needs(reported_run):
    for name, n in (("embedding", 7), ("weight_norm", 7), ("sharpness", 7), ("fourier", 7), ("progress", 7)):
        assert len(Series.load(reported_run / "measures" / f"{name}.safetensors")) == n


def test_second_report_is_equal_and_measures_nothing(reported_run, monkeypatch, tmp_path):
    copy = shutil.copytree(reported_run, tmp_path / "tiny")
    first = (reported_run / "report.html").read_bytes()
    monkeypatch.setattr(measures, "evaluate", lambda *_, **__: pytest.fail("was measured again"))
    assert report.write(Trajectory.open(copy)).read_bytes() == first


@pytest.mark.slow
def test_report_does_not_import_matplotlib(reported_run, tmp_path):
    copy = shutil.copytree(reported_run, tmp_path / "tiny")
    code = (
        "import sys; from grokscope import cli; cli.main(['report', sys.argv[1]]);"
        "assert 'matplotlib' not in sys.modules and 'grokscope.report' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(copy)], check=True, capture_output=True)


def test_other_saved_measures_appear_under_their_options(reported_run, tmp_path):
    copy = shutil.copytree(reported_run, tmp_path / "tiny")
    trajectory = Trajectory.open(copy)
    measures.saved("parallelograms", trajectory)
    measures.saved("loss", trajectory, 3)
    measures.saved("embedding", trajectory, seed=3)
    (copy / "measures" / "damaged.safetensors").write_bytes(b"damaged")
    keys = {quantity["key"] for quantity in read_payload(report.write(trajectory))["quantities"]}
    assert {"parallelograms.rqi", "loss.accuracy", "embedding.circularity", "embedding (seed=3).circularity"} <= keys


def test_trajectory_in_memory_has_no_report(tiny_config):
    parameters = families.build(tiny_config.model, tasks.build(tiny_config.task)).initialize(0)
    with pytest.raises(GrokscopeError, match="in memory"):
        report.write(Trajectory.from_state_dicts(tiny_config, {0: parameters}))


def test_representations_of_a_large_group_are_not_measured(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "_LARGEST_GROUP", 5)
    config = dataclasses.replace(tiny_config, task=TaskConfig("composition", group="S3"), n_steps=5)
    report.write(grokscope.train(config, "s3", tmp_path))
    assert not list((tmp_path / "s3" / "measures").glob("representations*"))


def test_measure_that_fails_is_named_on_the_page(reported_run, tmp_path, monkeypatch):
    copy = shutil.copytree(reported_run, tmp_path / "copy")
    (copy / "measures" / "sharpness.safetensors").unlink()
    evaluate = measures.MeasureRequest.evaluate

    def fail_on_sharpness(request: measures.MeasureRequest) -> Series:
        if request.name == "sharpness":
            raise GrokscopeError("A product with the Hessian is not finite.")
        return evaluate(request)

    monkeypatch.setattr(measures.MeasureRequest, "evaluate", fail_on_sharpness)
    page = read_page(report.write(Trajectory.open(copy)))
    assert "The measure sharpness is not on this page: A product with the Hessian is not finite." in page.text["p"]
    assert "weight norm" in page.text["dl"] and "Hessian" not in page.text["dl"]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda array: array[..., None], id="extra axis"),
        pytest.param(lambda array: array.reshape(len(array), -1)[:, :1], id="first column", marks=pytest.mark.slow),
        pytest.param(lambda array: np.full_like(array, np.nan), id="NaN", marks=pytest.mark.slow),
    ],
)
def test_saved_measure_of_wrong_form_gives_page_or_error(damage, reported_run, tmp_path):
    """A run that somebody else made can contain such a file, with valid checksums."""
    for name in Series.load(reported_run / "measures" / "embedding.safetensors").arrays:
        copy = shutil.copytree(reported_run, tmp_path / name)
        path = copy / "measures" / "embedding.safetensors"
        series = Series.load(path)
        if np.issubdtype(series[name].dtype, np.floating):
            dataclasses.replace(series, arrays={**series.arrays, name: damage(series[name])}).save(path)
        try:
            assert_harmless(report.write(Trajectory.open(copy)).read_text(encoding="utf-8"))
        except GrokscopeError as error:
            assert str(copy / "measures") in str(error)


def test_page_of_a_read_only_run_contains_unsaved_measures(tiny_run, tmp_path, monkeypatch):
    copy = shutil.copytree(tiny_run, tmp_path / "copy")
    shutil.rmtree(copy / "measures", ignore_errors=True)
    usual = atomic.make_folder

    def refuse(path):
        if path.is_relative_to(copy):
            raise GrokscopeError("The disk is read-only.") from OSError(errno.EROFS, "Read-only file system")
        usual(path)

    monkeypatch.setattr(atomic, "make_folder", refuse)
    names = []
    page = report.write(Trajectory.open(copy), tmp_path / "pages" / "page.html", names.append)
    assert page == tmp_path / "pages" / "page.html" and not (copy / "report.html").exists()
    assert names == ["embedding", "weight_norm", "sharpness", "attention", "example_loss", "fourier", "progress"]
    keys = {quantity["key"] for quantity in read_payload(page)["quantities"]}
    assert any(key.startswith("sharpness") for key in keys), keys


def test_observer_is_not_called_for_a_saved_measure(tiny_run, tmp_path):
    copy = shutil.copytree(tiny_run, tmp_path / "copy")
    report.write(Trajectory.open(copy))
    names = []
    report.write(Trajectory.open(copy), observer=names.append)
    assert names == []


def test_show_displays_the_whole_page_in_a_sandboxed_frame(run_copy):
    from html.parser import HTMLParser

    class Frame(HTMLParser):
        attributes: dict = {}

        def handle_starttag(self, tag, attrs):
            assert tag == "iframe" and not self.attributes
            self.attributes = dict(attrs)

    frame = Frame()
    frame.feed(report.show(run_copy, height=321)._repr_html_())
    assert frame.attributes["srcdoc"] == (run_copy / "report.html").read_text("utf-8")
    assert frame.attributes["sandbox"] == "allow-scripts allow-downloads" and "321px" in frame.attributes["style"]
