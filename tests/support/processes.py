"""Programs and commands in other processes."""

import os
import subprocess
import sys
from typing import Any

COMMAND = "import sys\nfrom grokscope.cli import main\nmain(sys.argv[1:])\n"
"""A program that runs its arguments as a command."""


def run_program(program: str, *arguments: Any, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python source with arguments and additional environment variables."""
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, **environment},
    )


def run_in_shell(*arguments: Any, redirection: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command from a shell that redirects its streams."""
    command = [sys.executable, "-m", "grokscope", *map(str, arguments)]
    return subprocess.run(["sh", "-c", f'"$@" {redirection}', "sh", *command], capture_output=True, text=True)
