"""A page as HTML: self-contained, harmless whatever the run's texts are, and complete."""

import json
import re
import shutil
from pathlib import Path

import pytest
from support.pages import (
    HOSTILE,
    HOSTILE_NAME,
    ParsedPage,
    assert_harmless,
    read_page,
    read_payload,
    write_hostile_report,
)

import grokscope
from grokscope import measures, report
from grokscope.report import page
from grokscope.store.run_store import RunStore
from grokscope.trajectory import Trajectory


@pytest.fixture(scope="module")
def hostile_page(reported_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report whose every text is hostile, the run's name included."""
    return write_hostile_report(shutil.copytree(reported_run, tmp_path_factory.mktemp("hostile") / HOSTILE_NAME))


def test_page_is_harmless_and_has_every_panel(reported_run):
    assert_harmless((reported_run / "report.html").read_text(encoding="utf-8"))
    assert {"losses", "embedding", "planes", "spectrum", "pairs", "heads", "measure-1"} <= {
        attributes.get("id") for _, attributes in read_page(reported_run / "report.html").elements
    }


def test_page_states_config_digest_and_version(reported_run):
    trajectory = Trajectory.open(reported_run)
    parsed = read_page(reported_run / "report.html")
    assert trajectory.digest in parsed.text["code"]
    assert parsed.text["h1"] == "tiny" and "tiny" in parsed.text["title"]
    body = re.sub(r"\s+", " ", parsed.text["body"])
    for text in (f"grokscope {grokscope.__version__}", "a + b mod 7", "on 29 of 49 equations", "7 checkpoints"):
        assert text in body


def test_page_contains_every_headline_and_sentence(reported_run):
    trajectory = Trajectory.open(reported_run)
    series = report.default_series(measures.kept(trajectory), trajectory)
    parsed = read_page(reported_run / "report.html")
    for headline in report.headlines(trajectory.log, series):
        assert headline.name in parsed.text["dt"]
        assert headline.value in parsed.text["dd"] and headline.context in parsed.text["small"]
    assert report.summary(trajectory.log) in parsed.text["p"]
    for sentence in report.details(trajectory.log, series):
        assert sentence in parsed.text["li"]


def test_hostile_texts_are_shown_as_text(hostile_page):
    text = hostile_page.read_text(encoding="utf-8")
    assert_harmless(text)
    parsed = ParsedPage(text)
    assert parsed.text["h1"] == HOSTILE_NAME
    assert parsed.text["header"].count(HOSTILE) == 2, "the formula and the run that it was forked from"
    assert HOSTILE_NAME in parsed.text["p"], "the sentence on a damaged segment names its path"
    assert HOSTILE in parsed.text["td"] and HOSTILE in parsed.text["th"]
    assert any(quantity["group"].startswith(HOSTILE) for quantity in read_payload(hostile_page)["quantities"])


def test_damaged_segment_and_its_gap_are_reported(reported_run, tmp_path):
    copy = shutil.copytree(reported_run, tmp_path / "tiny")
    segments = sorted((copy / "segments").glob("*.safetensors"))
    segments[2].write_bytes(b"damaged")
    trajectory = Trajectory.open(copy)
    path = report.write(trajectory)
    ((first, last),) = trajectory.gaps
    assert f"Steps {first} to {last} are lost" in read_page(path).text["p"]
    assert segments[2].name in read_page(path).text["p"]
    assert read_payload(path)["gaps"] == [[first, last]]


def test_run_with_a_single_checkpoint_has_a_page(reported_run, tmp_path):
    """A reader may ask for the report of a young run, or of one that was killed in its first minute."""
    copy = shutil.copytree(reported_run, tmp_path / "young")
    for segment in sorted((copy / "segments").glob("*.safetensors"))[1:]:
        segment.unlink()
    assert RunStore(copy).steps.tolist() == [0]
    body = re.sub(r"\s+", " ", read_page(report.write(Trajectory.open(copy))).text["body"])
    assert "1 checkpoint " in body and "trained to step 0 of 60" in body


def test_numbers_cannot_end_their_script():
    text = page._json({"</script>": "<!-- & \u2028"})
    assert not set(text) & set("<>&\u2028") and json.loads(text) == {"</script>": "<!-- & \u2028"}
