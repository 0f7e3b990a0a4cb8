"""Classes of other programs become fields, numpy's numbers become numbers, and modules name their conversion."""

import argparse
import functools
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from grokscope.errors import GrokscopeError
from grokscope.interop import file_configs, safe_load


@dataclass
class Config:
    """A config of another program."""

    n_head: int = 4
    activation: str = "nn.GELU()"


class Attributes(dict):  # pyright: ignore[reportMissingTypeArgument]
    """A dict with another class, as Lightning saves its hyperparameters."""


def test_configs_of_foreign_classes_are_read(tmp_path: Path):
    path = tmp_path / "x.pt"
    for config in (Config(), argparse.Namespace(n_head=4, activation="GELU"), Attributes(num_heads=4, act="gelu")):
        torch.save({"model": {"a": torch.ones(2)}, "config": config}, path)
        content = safe_load.read(path)
        assert torch.equal(content["model"]["a"], torch.ones(2))
        assert file_configs.properties(file_configs.plain(content["config"])).get("n_heads") == 4


def test_numpy_values_become_numbers_and_tensors(tmp_path: Path):
    array = np.arange(6, dtype=">f8").reshape(2, 3)
    content = {
        "losses": [np.float64(0.1), np.float32(0.5)],
        "array": array,
        "fortran": np.asfortranarray(array.astype("<i4")),
        "pair": (np.int64(7), 1),
        "counts": defaultdict(list, {"a": 1}),
        "path": Path("x"),
    }
    torch.save(content, tmp_path / "x.pt")
    read = safe_load.read(tmp_path / "x.pt")
    assert read["losses"] == [0.1, 0.5] and read["pair"] == (7, 1) and read["counts"] == {"a": 1}
    assert read["array"].tolist() == array.tolist() and read["array"].dtype == torch.float64
    assert read["fortran"].tolist() == array.astype(int).tolist()


def test_two_lines_convert_a_whole_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    for content in (module, {"model": module, "step": 3}):
        torch.save(content, "net.pt")
        with pytest.raises(GrokscopeError, match="contains a whole module") as refusal:
            safe_load.read(Path("net.pt"))
        sentence, *lines = str(refusal.value).split("\n")
        assert "allowed: its state dict" in sentence and len(lines) == 2
        exec("\n".join(line.strip() for line in lines), {"torch": torch})
        assert list(safe_load.read(Path("net_state.pt"))) == ["0.weight", "0.bias"]


def test_module_that_calls_a_function_names_the_lines_too(tmp_path: Path):
    module = torch.nn.Linear(2, 2)
    module.activation = functools.partial(torch.relu)  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
    torch.save(module, tmp_path / "net.pt")
    with pytest.raises(GrokscopeError, match="contains a whole module.*\n.*torch.load"):
        safe_load.read(tmp_path / "net.pt")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_program_names_its_lines(tmp_path: Path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "net.pt")  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(GrokscopeError, match=r"TorchScript program.*\n  model = torch\.jit\.load\('net\.pt'"):
        safe_load.read(tmp_path / "net.pt")
