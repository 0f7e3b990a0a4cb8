"""The command `import`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from grokscope.cli.arguments import ROOT, counted, parse, printable, usage_errors
from grokscope.cli.training import print_outcome, settings_given, to_tyro_spelling
from grokscope.errors import GrokscopeError

if TYPE_CHECKING:
    from grokscope.config import RunConfig


def import_(arguments: list[str]) -> None:
    """Make a run from checkpoints of another program; every field of the config is a flag."""
    from grokscope.config import RunConfig, toml

    @dataclass(frozen=True)
    class Import:
        """Make a run from the checkpoints in FILE …: .safetensors (also sharded), .pt, .pth, .ckpt, .bin, .npz, or a
        folder of transformers or accelerate. Code in the files never runs.

        The layout and the architecture are read from the files, and the command asks for what they do not tell. A
        preset or flags describe the rest of the training; every field of the config is a flag. n_steps becomes the
        last step.
        """

        paths: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FILE …")]
        """Files with one state dict or several. A step is in the file, or in its name after step, iter or ckpt."""
        config: Annotated[RunConfig, tyro.conf.arg(name="")]
        preset: str | None = None
        """The defaults of the flags: a name that `grokscope list presets` prints, or a CONFIG.toml. Without a preset,
        the task's size and form are read from the files too."""
        steps: tuple[int, ...] | None = None
        """The step of each state dict, in the order of the files."""
        train_indices: Path | None = None
        """A file with the training examples: indices, or pairs of operands (.pt, .npy, .json, .txt)."""
        split: str | None = None
        """The draw of the training set: random-shuffle:SEED by Python's random, as in Nanda et al. 2023, or
        grokscope:SEED. Without a known training set, losses cover all equations."""
        leave_out: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME …")] = ()
        """Tensors that the model does not use. Copies of parameters are left out by default."""
        causal: bool = False
        """Whether attention is causal, for a file with several layers that does not tell."""
        skip_damaged: bool = False
        """Leave out files and checkpoints that cannot be read, and name them. By default nothing is imported then."""
        answers_only: bool = False
        """Drop the unembedding's columns of tokens that are never an answer, such as "="."""
        run: str | None = None
        """The run's name; by default the task's name, then NAME-2, …"""
        root: Path = ROOT
        """The folder that contains the runs."""

    flags = to_tyro_spelling(arguments)

    def parsed(preset: str | None) -> Import:
        with usage_errors():
            base = _base(preset, RunConfig())
        return parse(Import, "import", flags, pairs=True, default=Import(tyro.MISSING, base, preset))

    # The preset gives the defaults of the flags and may follow them, so arguments are parsed twice.
    options = parsed(None)
    if options.preset is not None:
        options = parsed(options.preset)
    with usage_errors():
        config = toml.load_table_file(options.config, Path())

    from grokscope.interop import import_run
    from grokscope.store.record import Record

    trajectory = import_run.import_checkpoints(
        options.paths,
        config,
        options.run,
        options.root,
        options.steps,
        options.answers_only,
        train_indices=options.train_indices,
        split=options.split,
        leave_out=options.leave_out,
        is_causal=options.causal,
        given=settings_given(flags),
        is_described=options.preset is not None,
        skip_damaged=options.skip_damaged,
    )
    first, last = (f"{trajectory.steps[row]:,}" for row in (0, -1))
    span = f"step {first}" if first == last else f"steps {first} to {last}"
    print(f"imported {counted(len(trajectory), 'checkpoint')}, {span}")
    assert trajectory.path is not None
    for note in (Record.read(trajectory.path).imported or {}).get("notes", ()):
        print(printable(note))
    if not trajectory.has_split:
        print("The training set is unknown; name it with --train-indices FILE or --split random-shuffle:SEED.")
    print_outcome(trajectory)


def _base(preset: str | None, default: "RunConfig") -> "RunConfig":
    """Return the config that the flags change."""
    from grokscope.config import presets, toml

    if preset is None:
        return default
    try:
        return toml.read(Path(preset)) if preset.endswith(".toml") else presets.get(preset)
    except GrokscopeError as error:
        raise GrokscopeError(f"--preset: {error}") from error
