"""The script that stamps a release, on a copy of the files that it changes."""

import re
import shutil
from pathlib import Path

import pytest
from support.scripts import import_script

ROOT = Path(__file__).parent.parent
release = import_script(ROOT / ".ci" / "release.py")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    (tmp_path / "grokscope").mkdir()
    for name in ("grokscope/_version.py", "CITATION.cff", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## [Unreleased]\n\n- A change.\n\n## [0.1.0] - 2026-01-01\n"
    )
    return tmp_path


def test_stamp_writes_the_version_everywhere(copy: Path):
    release.stamp(copy, "7.0.1", "2027-01-31")
    assert '__version__ = "7.0.1"' in (copy / "grokscope" / "_version.py").read_text()
    assert "version: 7.0.1\ndate-released: 2027-01-31\n" in (copy / "CITATION.cff").read_text()
    log = (copy / "CHANGELOG.md").read_text()
    assert "## [Unreleased]\n\n## [7.0.1] - 2027-01-31\n\n- A change.\n" in log


@pytest.mark.parametrize(
    ("version", "message"), [("1.2", "three numbers"), ("0.0.1", "a version above"), ("", "three")]
)
def test_wrong_version_changes_nothing(version: str, message: str, copy: Path):
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit, match=message):
        release.stamp(copy, version, "2027-01-31")
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_empty_changelog_is_not_released(copy: Path):
    (copy / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n\n## [0.1.0] - 2026-01-01\n")
    with pytest.raises(SystemExit, match="nothing is listed"):
        release.stamp(copy, "7.0.1", "2027-01-31")


def test_workflows_run_only_make_targets():
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    commands = [
        command
        for path in (ROOT / ".github" / "workflows").glob("*.yml")
        for command in re.findall(r"run: (.*)", path.read_text())
    ]
    assert len(commands) >= 6
    assert all(re.fullmatch("make ([a-z0-9-]+)", command) for command in commands)
    assert {command.removeprefix("make ") for command in commands} <= set(targets)
