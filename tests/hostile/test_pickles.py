"""Malicious checkpoint files: the error is short, no code runs, no file appears, and memory stays bounded."""

import os
import resource
import time
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from support.shared import make_tiny_config, quick
from torch.torch_version import TorchVersion

from grokscope.errors import GrokscopeError
from grokscope.interop import import_run, safe_load
from hostile import pickles


@pytest.mark.parametrize("name", pickles.SHAPES)
def test_malicious_file_is_refused(name: str, tmp_path: Path):
    canary, path = tmp_path / "canary", tmp_path / "here" / "step100.pt"
    path.parent.mkdir()
    pickles.SHAPES[name](path, canary)
    files, memory = sorted(tmp_path.rglob("*")), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    with pytest.raises(GrokscopeError) as refusal:
        import_run.import_checkpoints([path], make_tiny_config(), "run", tmp_path / "runs")
    seconds = time.process_time() - started
    message = str(refusal.value)
    assert str(path) in message or "step 100: " in message
    # Only the lines that convert a whole module, for those who trust it, name the unsafe option.
    assert len(message) < 3000 and ("weights_only" not in message or name == "a whole module")
    assert sorted(tmp_path.rglob("*")) == files and not canary.exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 200_000
    assert seconds < 30, "processor time: a bomb would take minutes"


def test_trusting_loader_runs_the_malicious_code(tmp_path: Path):
    """The control: these files do run code under `weights_only=False`."""
    for name in ("os.system", "builtins.exec"):
        canary, path = tmp_path / name, tmp_path / f"{name}.pt"
        pickles.SHAPES[name](path, canary)
        torch.load(path, weights_only=False)
        assert canary.exists()


@pytest.mark.parametrize("name", pickles.TWO_READINGS)
def test_ambiguous_archive_loads_only_the_checked_bytes(name: str, tmp_path: Path):
    path = tmp_path / "step100.pt"
    pickles.TWO_READINGS[name](path, tmp_path)
    with zipfile.ZipFile(path) as file:
        assert file.read("x/data.pkl") == pickles.SEEN
    assert list(torch.load(path, weights_only=True)) == ["loaded in its place"], "so the two readers differ"
    assert safe_load.read(path) == {"seen": None}


@pytest.mark.parametrize("by_torch", quick([True, False], [True]))
def test_changed_byte_is_refused_or_harmless(by_torch: bool, tmp_path: Path):
    path = tmp_path / "1.pt"
    content = {"a": torch.arange(3.0), "b": torch.zeros(0)}
    torch.save(content, path)
    if not by_torch:
        with zipfile.ZipFile(path) as file:
            parts = {name: file.read(name) for name in file.namelist()}
        with zipfile.ZipFile(path, "w") as file:
            for name, data in parts.items():
                file.writestr(name, data)
    original = path.read_bytes()
    n_refused = 0
    # torch fills gaps with Z; nothing reads them.
    for i in (i for i in range(len(original)) if original[i : i + 2] != b"ZZ"):
        for byte in {255, original[i] ^ 1} - {original[i]}:
            path.write_bytes(original[:i] + bytes([byte]) + original[i + 1 :])
            try:
                state_dict = safe_load.read(path)
            except GrokscopeError:
                n_refused += 1
            else:
                assert list(state_dict) == ["a", "b"]
                assert all(torch.equal(state_dict[name], content[name]) for name in state_dict)
    assert n_refused > 1400


def test_tensor_that_grows_while_loading_is_refused(tmp_path: Path):
    pickles.SHAPES["a tensor that grows"](tmp_path / "1.pt", tmp_path)
    with pytest.raises(GrokscopeError, match="'embed.W_E' claims 12,000,000,000 bytes, and the file stores fewer"):
        safe_load.read(tmp_path / "1.pt")


def test_old_torch_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    torch.save({"a": torch.zeros(2)}, tmp_path / "1.pt")
    safetensors.torch.save_file({"a": torch.zeros(2)}, tmp_path / "1.safetensors")
    for version, is_safe in (("2.9.1", False), ("2.10.0", True), ("3.0.0", True)):
        monkeypatch.setattr(torch, "__version__", TorchVersion(version))
        assert list(safe_load.read(tmp_path / "1.safetensors")) == ["a"]
        if is_safe:
            assert list(safe_load.read(tmp_path / "1.pt")) == ["a"]
        else:
            with pytest.raises(GrokscopeError, match=r"torch 2\.9\.1 cannot read .*Install torch 2\.10 or newer"):
                safe_load.read(tmp_path / "1.pt")


def test_archive_with_a_huge_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    torch.save({str(i): torch.zeros(1) for i in range(60)}, tmp_path / "1.pt")
    monkeypatch.setattr(safe_load, "LARGEST_PICKLE", 3000)
    with pytest.raises(GrokscopeError, match=r"1\.pt is damaged: BadZipFile 'a directory of [\d,]+ bytes'"):
        safe_load.read(tmp_path / "1.pt")


def test_tensor_larger_than_the_directory_limit_is_read(tmp_path: Path):
    torch.save({"a": torch.ones(safe_load.LARGEST_PICKLE // 4 + 1)}, tmp_path / "1.pt")
    assert bool((safe_load.read(tmp_path / "1.pt")["a"] == 1).all())


def test_at_least_thirty_shapes_are_malicious():
    print(f"{len(pickles.SHAPES)} malicious shapes")
    assert len(pickles.SHAPES) >= 30


@pytest.mark.parametrize("suffix", safe_load.SUFFIXES)
def test_path_that_is_not_a_regular_file_is_refused(suffix: str, tmp_path: Path):
    os.mkfifo(tmp_path / f"pipe{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    (tmp_path / f"link{suffix}").symlink_to("/etc/passwd")
    (tmp_path / f"loop{suffix}").symlink_to(tmp_path / f"loop{suffix}")
    (tmp_path / f"zeros{suffix}").symlink_to("/dev/zero")
    for name in ("pipe", "folder", "link", "loop", "zeros", "none", "a\0b", "x" * 5000):
        with pytest.raises(GrokscopeError):
            safe_load.read(tmp_path / f"{name}{suffix}")


def test_safetensors_claiming_more_than_stored_is_refused(tmp_path: Path):
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


def test_file_above_a_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    two = {"a": torch.zeros(2), "b": torch.zeros(2)}
    torch.save(two, tmp_path / "1.pt")
    safetensors.torch.save_file(two, tmp_path / "1.safetensors")
    for name in ("1.pt", "1.safetensors"):
        assert len(safe_load.read(tmp_path / name)) == 2
        for limit in ("MOST_TENSORS", "MOST_VALUES"):
            with (
                monkeypatch.context() as patch,
                pytest.raises(GrokscopeError, match=f"{name} .* 1 (values|tensors|instr)"),
            ):
                patch.setattr(safe_load, limit, 1)
                safe_load.read(tmp_path / name)
        with monkeypatch.context() as patch, pytest.raises(GrokscopeError, match="bytes; allowed: up to 20"):
            patch.setattr(safe_load, "LARGEST_FILE", 20)
            safe_load.read(tmp_path / name)
    with pytest.raises(GrokscopeError, match=r"is not a checkpoint file\. Allowed: .*safetensors"):
        safe_load.read(tmp_path / "1.txt")


@pytest.mark.parametrize(("limit", "most"), [("MOST_TENSORS", 100), ("LARGEST_FILE", 4000)])
def test_repeated_objects_count_each_time(limit: str, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(safe_load, limit, most)
    for n in (60, 120):
        path = tmp_path / f"{n}.pt"
        torch.save({"checkpoints": [torch.zeros(10)] * n}, path)
        if n == 60:
            assert len(safe_load.read(path)["checkpoints"]) == 60
        else:
            with pytest.raises(GrokscopeError, match=r"120\.pt contains too much, counting repeated .* each time"):
                safe_load.read(path)


def test_optimizer_state_that_shares_a_tuple_is_read(tmp_path: Path):
    weights = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    optimizer = torch.optim.AdamW([{"params": [weight]} for weight in weights], betas=(0.9, 0.98))
    torch.save({"model": {}, "optimizers": [optimizer.state_dict()] * 3}, tmp_path / "1.pt")
    groups = safe_load.read(tmp_path / "1.pt")["optimizers"][2]["param_groups"]
    assert [group["betas"] for group in groups] == [(0.9, 0.98)] * 2
