"""Machines that grokscope does not support: each is refused in one sentence, before any work."""

import pytest
from support.processes import run_program

from grokscope.config import RunConfig
from grokscope.errors import GrokscopeError

ON_WINDOWS = """
import sys
sys.platform = "win32"
sys.modules["fcntl"] = None
sys.argv[0] = {program!r}
"""
SENTENCE = "grokscope runs on Linux and macOS"


def test_import_on_windows_raises_one_sentence():
    process = run_program(ON_WINDOWS.format(program="analysis.py") + "import grokscope.disk.lock")
    assert process.returncode == 1
    assert process.stderr.splitlines()[-1].startswith(f"ImportError: {SENTENCE}") and "wsl" in process.stderr


@pytest.mark.parametrize("program", [r"C:\\venv\\Scripts\\grokscope.exe", r"C:\\venv\\Lib\\grokscope\\__main__.py"])
def test_command_on_windows_prints_one_sentence(program: str):
    process = run_program(ON_WINDOWS.format(program=program) + "from grokscope.__main__ import main")
    assert process.returncode == 1 and process.stderr.count("\n") == 1
    assert process.stderr.startswith(SENTENCE) and "wsl --install" in process.stderr


@pytest.mark.parametrize("device", ["mps", "mps:0"])
def test_apple_gpu_is_refused_with_its_reason(device: str):
    with pytest.raises(GrokscopeError, match=f"device: '{device}'; allowed: 'cpu'.*mps has no float64"):
        RunConfig(device=device).validate()


def test_other_device_is_refused_without_mention_of_mps():
    with pytest.raises(GrokscopeError, match="device: 'tpu'; allowed: 'cpu'") as caught:
        RunConfig(device="tpu").validate()
    assert "mps" not in str(caught.value)
