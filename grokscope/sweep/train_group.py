"""The process of one ensemble of cells: ``python -m grokscope.sweep.train_group FOLDER PARENT [--allow-drift]``.

The cells' configs are read as JSON, by name, from standard input. The reasons of failed cells are printed as JSON, by
name. The exit status is that of `train_cell`.
"""

import json
import sys
from pathlib import Path

from grokscope.config import from_dict
from grokscope.sweep.train_cell import exit_status
from grokscope.training.train_ensemble import train_ensemble


def main(arguments: list[str]) -> int:
    """Train or resume the cells' runs to their end; return the exit status."""
    folder = Path(arguments[0])

    def train() -> None:
        configs = {folder / name: from_dict(values) for name, values in json.load(sys.stdin).items()}
        errors = train_ensemble(list(configs.values()), list(configs), "--allow-drift" in arguments)
        sys.stdout.write(json.dumps({path.name: str(error) for path, error in errors.items()}))

    return exit_status(train, int(arguments[1]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
