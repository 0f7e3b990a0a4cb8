"""Malicious files of tensors: refused in one sentence, nothing of them run, nothing written, no memory taken."""

import os
import resource
import time
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from support.shared import make_tiny_config

from grokscope.errors import GrokscopeError
from grokscope.interop import import_run, safe_load, torch_zip
from hostile import pickles


@pytest.mark.parametrize("name", pickles.SHAPES)
def test_a_malicious_file_is_refused_and_nothing_of_it_is_run(name: str, tmp_path: Path):
    canary, path = tmp_path / "canary", tmp_path / "here" / "step100.pt"
    path.parent.mkdir()
    pickles.SHAPES[name](path, canary)
    before, memory = sorted(tmp_path.rglob("*")), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    with pytest.raises(GrokscopeError) as refusal:
        import_run.import_checkpoints([path], make_tiny_config(), "run", tmp_path / "runs")
    seconds = time.process_time() - started
    said = str(refusal.value)
    assert str(path) in said or "step 100: " in said
    assert len(said) < 3000 and "weights_only" not in said
    assert sorted(tmp_path.rglob("*")) == before and not canary.exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 200_000
    assert seconds < 2, "processor time: a bomb would take minutes"


def test_the_control_a_loader_that_trusts_runs_what_is_in_them(tmp_path: Path):
    for name in ("os.system", "builtins.exec"):
        canary, path = tmp_path / name, tmp_path / f"{name}.pt"
        pickles.SHAPES[name](path, canary)
        torch.load(path, weights_only=False)
        assert canary.exists()


@pytest.mark.parametrize("name", pickles.TWO_READINGS)
def test_what_is_looked_through_is_what_is_loaded(name: str, tmp_path: Path):
    path = tmp_path / "step100.pt"
    pickles.TWO_READINGS[name](path, tmp_path)
    with zipfile.ZipFile(path) as file:
        assert file.read("x/data.pkl") == pickles.SEEN
    assert list(torch.load(path, weights_only=True)) == ["loaded in its place"], "so readers differ"
    with pytest.raises(GrokscopeError, match=r"is no archive as torch\.save writes it, .*; refused unread"):
        safe_load.read(path)


@pytest.mark.parametrize("by_torch", [True, False])
def test_whatever_byte_around_the_parts_is_changed_the_file_is_refused_or_read_as_it_was(
    by_torch: bool, tmp_path: Path
):
    path = tmp_path / "1.pt"
    content = {"a": torch.arange(3.0), "b": torch.zeros(0)}
    torch.save(content, path)
    if not by_torch:
        with zipfile.ZipFile(path) as file:
            parts = {name: file.read(name) for name in file.namelist()}
        with zipfile.ZipFile(path, "w") as file:
            for name, data in parts.items():
                file.writestr(name, data)
    whole = path.read_bytes()
    with open(path, "rb") as file:
        inside = {i for one in torch_zip.parts(file, path).values() for i in range(one.start, one.start + one.size)}
    n_refused = 0
    # What torch fills gaps with is nothing that anybody reads.
    for i in (i for i in set(range(len(whole))) - inside if whole[i : i + 2] != b"ZZ"):
        for byte in {255, whole[i] ^ 1} - {whole[i]}:
            path.write_bytes(whole[:i] + bytes([byte]) + whole[i + 1 :])
            try:
                found = safe_load.read(path)
            except GrokscopeError:
                n_refused += 1
            else:
                assert list(found) == ["a", "b"] and all(torch.equal(found[name], content[name]) for name in found)
    assert n_refused > 700


def test_a_tensor_is_not_made_larger_than_it_was_saved(tmp_path: Path):
    pickles.SHAPES["a tensor that is built anew"](tmp_path / "1.pt", tmp_path)
    with pytest.raises(GrokscopeError, match="gives a state to what has none; nothing of it was run"):
        safe_load.read(tmp_path / "1.pt")


def test_there_are_thirty_shapes_and_more():
    print(f"{len(pickles.SHAPES)} malicious shapes")
    assert len(pickles.SHAPES) >= 30


@pytest.mark.parametrize("suffix", safe_load.SUFFIXES)
def test_what_is_no_file_is_refused(suffix: str, tmp_path: Path):
    os.mkfifo(tmp_path / f"pipe{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    (tmp_path / f"link{suffix}").symlink_to("/etc/passwd")
    (tmp_path / f"loop{suffix}").symlink_to(tmp_path / f"loop{suffix}")
    (tmp_path / f"zeros{suffix}").symlink_to("/dev/zero")
    for name in ("pipe", "folder", "link", "loop", "zeros", "none", "a\0b", "x" * 5000):
        with pytest.raises(GrokscopeError):
            safe_load.read(tmp_path / f"{name}{suffix}")


def test_a_safetensors_file_that_claims_more_than_it_has_is_refused(tmp_path: Path):
    path = tmp_path / "100.safetensors"
    for header in (
        b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}',
        b'{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}',
        b"{" * 50_000,
    ):
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
        with pytest.raises(GrokscopeError, match=str(path)):
            safe_load.read(path)
    path.write_bytes((2**62).to_bytes(8, "little") + b"{}")
    with pytest.raises(GrokscopeError, match=str(path)):
        safe_load.read(path)


def test_files_that_are_too_large_or_hold_too_much_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    two = {"a": torch.zeros(2), "b": torch.zeros(2)}
    torch.save(two, tmp_path / "1.pt")
    safetensors.torch.save_file(two, tmp_path / "1.safetensors")
    for name in ("1.pt", "1.safetensors"):
        assert len(safe_load.read(tmp_path / name)) == 2
        with monkeypatch.context() as patch, pytest.raises(GrokscopeError, match="2 tensors; allowed: up to 1"):
            patch.setattr(safe_load, "MOST_TENSORS", 1)
            safe_load.read(tmp_path / name)
        with monkeypatch.context() as patch, pytest.raises(GrokscopeError, match="bytes; allowed: up to 20"):
            patch.setattr(safe_load, "LARGEST_FILE", 20)
            safe_load.read(tmp_path / name)
    with pytest.raises(GrokscopeError, match=r"is no file of tensors; allowed: .*safetensors"):
        safe_load.read(tmp_path / "1.txt")


@pytest.mark.parametrize(("limit", "most"), [("MOST_TENSORS", 100), ("LARGEST_FILE", 4000)])
def test_what_a_small_file_holds_again_and_again_counts_each_time(
    limit: str, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(safe_load, limit, most)
    for n in (60, 120):
        path = tmp_path / f"{n}.pt"
        torch.save({"checkpoints": [torch.zeros(10)] * n}, path)
        if n == 60:
            assert len(safe_load.read(path)["checkpoints"]) == 60
        else:
            with pytest.raises(GrokscopeError, match=r"120\.pt holds the same things again and again; allowed: "):
                safe_load.read(path)
