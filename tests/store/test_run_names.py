"""Names of runs: a default name is always valid, and a file's name may be anything."""

from pathlib import Path

import pytest

from grokscope.store.run_names import checked_name, new_run_folder, valid_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("my conf", "my-conf"),
        ("a/b: c", "a-b-c"),
        (".hidden", "hidden"),
        ("lr=1e-3+wd_0.1", "lr=1e-3+wd_0.1"),
        ("прогон", "run"),
        ("", "run"),
        ("a" * 200, "a" * 90),
    ],
)
def test_any_text_gives_a_valid_name(text: str, name: str):
    assert valid_name(text) == checked_name(valid_name(text)) == name


def test_default_name_with_a_space_gives_a_folder(tmp_path: Path):
    assert new_run_folder(tmp_path, None, "my conf") == tmp_path / "my-conf"
    (tmp_path / "my-conf").mkdir()
    assert new_run_folder(tmp_path, None, "my conf") == tmp_path / "my-conf-2"
