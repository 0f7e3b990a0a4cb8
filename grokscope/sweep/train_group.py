"""The process of cells that train in one ensemble: ``python -m grokscope.sweep.train_group FOLDER PARENT [--allow-drift]``.

On stdin are the cells' configs by name. It prints, by name, why single cells failed, and exits as a cell's process
does.
"""

import json
import sys
from pathlib import Path

from grokscope.config import from_dict
from grokscope.sweep.train_cell import status
from grokscope.training.train_ensemble import train_together


def main(arguments: list[str]) -> int:
    """Train the cells' runs, or go on with them, to their end; return the exit status."""
    folder = Path(arguments[0])

    def train() -> None:
        configs = {folder / name: from_dict(values) for name, values in json.load(sys.stdin).items()}
        failed = train_together(list(configs.values()), list(configs), "--allow-drift" in arguments)
        sys.stdout.write(json.dumps({path.name: str(error) for path, error in failed.items()}))

    return status(train, int(arguments[1]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
