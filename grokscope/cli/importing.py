"""The command that imports checkpoints of other programs."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from grokscope.cli.arguments import ROOT, parse
from grokscope.cli.training import conclude, spelled
from grokscope.errors import GrokscopeError

if TYPE_CHECKING:
    from grokscope.config import RunConfig


def import_(arguments: list[str]) -> None:
    """Make a run of checkpoints that another program saved; any field of the config is a flag."""
    from grokscope.config import RunConfig, toml

    @dataclass(frozen=True)
    class Import:
        """Make a run of the checkpoints in FILE …, .safetensors, .pt or .pth; nothing in them is run.

        Parameters under TransformerLens' names, or as Nanda et al. 2023 saved them. The config says what they are
        checkpoints of: any field of it is a flag; n_steps becomes the last step.
        """

        paths: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FILE …")]
        """A state dict each, the step last in the name, or many with their steps."""
        config: Annotated[RunConfig, tyro.conf.arg(name="")]
        preset: str | None = None
        """What the flags start from: a name that `grokscope list presets` prints, or a CONFIG.toml."""
        steps: tuple[int, ...] | None = None
        """The step of each state dict, in the order of the files."""
        answers_only: bool = False
        """Leave out the unembedding's columns of signs, which are never an answer."""
        run: str | None = None
        """The run's name; by default the task's, then NAME-2, …"""
        root: Path = ROOT
        """The folder that holds the runs."""

    flags = spelled(arguments)

    def parsed(preset: str | None) -> Import:
        base = _base(preset, RunConfig())
        return parse(Import, "import", flags, pairs=True, default=Import(tyro.MISSING, base, preset))

    # What the flags change is known only with the preset, which may stand after them.
    asked = parsed(None)
    if asked.preset is not None:
        asked = parsed(asked.preset)
    config = toml.with_table(asked.config, Path())

    from grokscope.interop import import_run

    trajectory = import_run.import_checkpoints(
        asked.paths, config, asked.run, asked.root, asked.steps, asked.answers_only
    )
    print(f"imported {len(trajectory):,} checkpoints, steps {trajectory.steps[0]:,} to {trajectory.steps[-1]:,}")
    conclude(trajectory)


def _base(preset: str | None, usual: "RunConfig") -> "RunConfig":
    from grokscope.config import presets, toml

    if preset is None:
        return usual
    try:
        return toml.read(Path(preset)) if preset.endswith(".toml") else presets.get(preset)
    except GrokscopeError as error:
        raise GrokscopeError(f"--preset: {error}") from error
