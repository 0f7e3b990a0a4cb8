"""The English of the project: words and phrases that make a reader stop are counted, and stay near zero."""

import ast
import io
import re
import tokenize
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYTHON = [path for folder in ("grokscope", "analyses", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]
PROSE = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "checkpoints/README.md", "analyses/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "grokscope" / "report" / "assets").glob("*.html")),
]
BANNED_NAMES = {"found", "said", "asked", "one", "its", "some", "there"}
BANNED_PHRASES = {
    "is no": r"(?<!there )(?<!There )\bis no\b(?! longer)",
    "are none": r"\bare none\b",
    "goes on": r"\bgo(?:es)? on\b",
    "anew": r"\banew\b",
    "once more": r"\bonce more\b",
    "whoever": r"\bwho(?:m)?ever\b",
    "stands, of a thing": r"\bstands? (?:in|on|at|there|beside|above|below|before|after|alone|as|near)\b|what stands",
    "lies, of a file": (
        r"\blies? (?:there|beside|in (?:\w+ ){0,2}(?:folder|file|segment|run|archive|package)s?)\b|what lies"
    ),
    "had again": r"\bhad again\b",
}
MOST_TEST_NAME = 60


@cache
def nodes(path: Path) -> list[ast.AST]:
    """Return every node of a source's syntax tree."""
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@cache
def phrases_by_file() -> dict[str, Counter[str]]:
    """Return the count of each banned phrase in every other file: in documents, and in the prose of sources."""
    texts = {path: prose_of(path.read_text(encoding="utf-8")) for path in PYTHON if path != Path(__file__)}
    texts |= {path: path.read_text(encoding="utf-8") for path in PROSE}
    return {str(path.relative_to(ROOT)): phrases_in(text) for path, text in texts.items()}


def prose_of(source: str) -> str:
    """Return the docstrings, comments and messages of a Python source."""
    parts = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        # A string without a space is a key or a name.
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and " " in token.string):
            parts.append(token.string)
    return "\n".join(parts)


def bound_names(path: Path) -> list[str]:
    """Return every name that a source binds: assignments, loops, parameters and comprehensions."""
    names = []
    for node in nodes(path):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.append(node.id)
        elif isinstance(node, ast.arg):
            names.append(node.arg)
    return names


def phrases_in(text: str) -> Counter[str]:
    """Return how often each banned phrase occurs, across line breaks too."""
    # A quoted word is a key, such as `anew`.
    flat = re.sub(r"\s+(?:#\s*)?", " ", re.sub(r"[`'\"]\w+[`'\"]", "", text))
    return Counter({phrase: len(re.findall(pattern, flat)) for phrase, pattern in BANNED_PHRASES.items()})


def test_no_variable_has_a_name_that_names_nothing():
    places = {
        f"{path.relative_to(ROOT)}: {name}" for path in PYTHON for name in bound_names(path) if name in BANNED_NAMES
    }
    assert sorted(places) == []


@pytest.mark.parametrize("phrase", BANNED_PHRASES)
def test_prose_avoids(phrase):
    counts = {name: phrases[phrase] for name, phrases in phrases_by_file().items() if phrases[phrase]}
    assert counts == {}


def test_test_names_have_at_most_60_characters():
    long = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in PYTHON
        if path.name.startswith("test_")
        for node in nodes(path)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and len(node.name) > MOST_TEST_NAME
    ]
    assert long == []


def test_exceptions_end_in_error():
    exceptions = [
        node.name
        for path in PYTHON
        if path.is_relative_to(ROOT / "grokscope")
        for node in nodes(path)
        if isinstance(node, ast.ClassDef)
        and any(ast.unparse(base).endswith(("Error", "Exception", "KeyboardInterrupt")) for base in node.bases)
    ]
    assert exceptions and [name for name in exceptions if not name.endswith("Error")] == []


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("It is no run.", "is no"),
        ("what is no\n    # run", "is no"),
        ("Training goes on.", "goes on"),
        ("The file lies in a folder.", "lies, of a file"),
    ],
)
def test_phrase_is_counted(text, phrase):
    assert phrases_in(text)[phrase] == 1


def test_phrase_that_is_allowed_is_not_counted():
    assert phrases_in("It is no longer there. There is no step. The points lie on a line.").total() == 0
