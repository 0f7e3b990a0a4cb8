"""The user's own examples: files of three kinds, and every fault that they can have."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from grokscope.config import own_data
from grokscope.errors import GrokscopeError

INPUTS, TARGETS = np.array([[0, 1], [1, 2], [2, 0]]), np.array([1, 0, 5])


def test_examples_survive_the_text():
    arrays = own_data.decode(own_data.encode(INPUTS, TARGETS, formula="a", n_elements=3))
    assert arrays["inputs"].tolist() == INPUTS.tolist() and arrays["labels"].tolist() == TARGETS.tolist()
    assert str(arrays["formula"]) == "a" and int(arrays["n_elements"]) == 3


def test_equal_examples_have_equal_text():
    assert own_data.encode(INPUTS, TARGETS) == own_data.encode(INPUTS.astype(np.int32), TARGETS.copy())


@pytest.mark.parametrize("names", [("inputs", "targets"), ("x", "y"), ("tokens", "labels")])
def test_npz_and_pt_files_give_the_same_text(tmp_path: Path, names: tuple[str, str]):
    arrays = dict(zip(names, (INPUTS, TARGETS), strict=True))
    np.savez(tmp_path / "a.npz", **arrays)  # pyright: ignore[reportArgumentType]
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, tmp_path / "a.pt")
    texts = {own_data.read_file(tmp_path / name) for name in ("a.npz", "a.pt")}
    assert texts == {own_data.encode(INPUTS, TARGETS)}


def test_csv_of_numbers_has_its_last_column_as_target(tmp_path: Path):
    (tmp_path / "a.csv").write_text("a,b,sum\n0,1,1\n1,2,3\n2,2,4\n")
    arrays = own_data.decode(own_data.read_file(tmp_path / "a.csv"))
    assert arrays["inputs"].tolist() == [[0, 1], [1, 2], [2, 2]] and arrays["labels"].tolist() == [1, 3, 4]


def test_csv_of_words_numbers_them_and_keeps_names(tmp_path: Path):
    (tmp_path / "a.csv").write_text("answer,first,second\nred,red,blue\nblue,blue,blue\n", encoding="utf-8-sig")
    arrays = own_data.decode(own_data.read_file(tmp_path / "a.csv"))
    assert arrays["names"].tolist() == ["blue", "red"]
    assert arrays["inputs"].tolist() == [[1, 0], [0, 0]] and arrays["labels"].tolist() == [1, 0]


def test_csv_with_a_target_per_input_is_a_sequence(tmp_path: Path):
    (tmp_path / "a.csv").write_text("x1,x2,target1,target2\n0,1,,1\n1,0,2,0\n")
    arrays = own_data.decode(own_data.read_file(tmp_path / "a.csv"))
    assert arrays["labels"].tolist() == [[-100, 1], [2, 0]]


FAULTY = [
    (INPUTS, TARGETS[:2], "targets has the shape (2,)"),
    (INPUTS[0], TARGETS, "inputs has the shape (2,)"),
    (INPUTS * 1.5, TARGETS, "type float64; allowed: whole numbers"),
    (INPUTS - 1, TARGETS, "inputs has -1 to 1"),
    (INPUTS, TARGETS - 1, "targets has -1 to 4"),
    (INPUTS, TARGETS * 0 - 100, "the target -100"),
    (INPUTS, INPUTS * 0 - 100, "an example has no target"),
    (INPUTS[:1], TARGETS[:1], "1 example; allowed: at least 2"),
]


@pytest.mark.parametrize(("inputs", "targets", "fault"), FAULTY)
def test_invalid_arrays_are_refused_in_one_sentence(inputs: np.ndarray, targets: np.ndarray, fault: str):
    with pytest.raises(GrokscopeError) as refused:
        own_data.encode(inputs, targets)
    assert fault in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.txt", b"", "its name ends in '.txt'"),
        ("a.csv", b"a,b\n1,2\n", "2 rows of 2 to 2 entries"),
        ("a.csv", b"a,b\n1,2\n1\n", "1 to 2 entries"),
        ("a.csv", b"1,2\n3,4\n5,6\n", "row of numbers"),
        ("a.csv", b"a,b\n,2\n3,4\n", "an input is empty"),
        ("a.csv", b"target,label\n1,2\n3,4\n", "all its columns"),
        ("a.csv", b"a,b\n\xff,2\n3,4\n", "not a CSV table in UTF-8"),
        ("a.npz", b"PK", "not a .npz file"),
        ("a.pt", b"\x80\x04N.", "torch cannot load it safely"),
    ],
)
def test_file_without_examples_is_refused_by_name(tmp_path: Path, name: str, content: bytes, fault: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(GrokscopeError, match=r"^task\.data: .*a\.") as refused:
        own_data.read_file(tmp_path / name)
    assert fault in str(refused.value)


def test_missing_file_and_folder_are_refused(tmp_path: Path):
    for path in (tmp_path / "missing.csv", tmp_path):
        with pytest.raises(GrokscopeError, match="cannot be read"):
            own_data.read_file(path)


@pytest.mark.parametrize("text", ["", "abc", "!!", "UEsDBA==", "@missing.csv"])
def test_text_without_examples_is_a_fault(text: str):
    (fault,) = own_data.data_faults(text)
    assert "allowed: @FILE" in fault


def test_forged_sizes_and_circle_are_faults():
    forged: list[dict[str, Any]] = [{"d_vocab": 2}, {"n_elements": 9}, {"circle": np.array([0, 7])}, {"odd": 1}]
    for about in forged:
        assert own_data.data_faults(own_data.encode(INPUTS, TARGETS, **about)), about
