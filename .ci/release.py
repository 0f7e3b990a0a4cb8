"""Stamp a version into the files that state it. `make release VERSION=X.Y.Z` runs this, then builds and checks."""

import re
import sys
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent


def stamp(root: Path, version: str, date: str) -> list[Path]:
    """Write a version and its date into _version.py, CITATION.cff and CHANGELOG.md, and return these files.

    Args:
        root: The folder of the repository.
        version: The new version, such as "1.2.0".
        date: The date of the release, such as "2026-12-01".

    Raises:
        SystemExit: The version is malformed or not newer than the present one, or the changelog has nothing new.
    """
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        sys.exit(f"VERSION={version}: allowed: three numbers, such as 1.2.0")
    code, citation, log = root / "grokscope" / "_version.py", root / "CITATION.cff", root / "CHANGELOG.md"
    present = re.findall(r'__version__ = "([\d.]+)"', code.read_text("utf-8"))[0]
    if _numbers(version) <= _numbers(present):
        sys.exit(f"VERSION={version}: allowed: a version above {present}. `make dist` builds {present}.")
    entries = re.findall(r"^## \[Unreleased\]\n(.*?)(?=^## )", log.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    if not entries or not entries[0].strip():
        sys.exit("CHANGELOG.md: nothing is listed under [Unreleased]")
    _replace(code, r'__version__ = "[\d.]+"', f'__version__ = "{version}"')
    _replace(citation, r"^version: .*$", f"version: {version}")
    _replace(citation, r"^date-released: .*$", f"date-released: {date}")
    _replace(log, r"^## \[Unreleased\]$", f"## [Unreleased]\n\n## [{version}] - {date}")
    return [code, citation, log]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _replace(path: Path, pattern: str, text: str) -> None:
    """Replace the single match of a pattern in a file."""
    content, n_matches = re.subn(pattern, text, path.read_text("utf-8"), flags=re.MULTILINE)
    if n_matches != 1:
        sys.exit(f"{path}: {n_matches} matches of {pattern}; expected one")
    path.write_text(content, "utf-8")


if __name__ == "__main__":
    stamped = stamp(ROOT, sys.argv[1], f"{datetime.now(UTC):%F}")
    print(f"stamped {sys.argv[1]} into {', '.join(str(path.relative_to(ROOT)) for path in stamped)}")
