"""Trajectory: the checkpoints of a run, from disk or from memory."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokscope import notebook, tasks
from grokscope.config import RunConfig
from grokscope.config.stop_rule import Stop, end_step
from grokscope.errors import UNKNOWN_TRAIN_SET, DamagedError, GrokscopeError, unknown_name
from grokscope.model import families, own
from grokscope.model.state_dicts import memory_from_state_dicts
from grokscope.opened_run import has_recorded_data, open_store, recorded_split
from grokscope.run_log import log_series
from grokscope.series import Series
from grokscope.snapshot import Snapshot
from grokscope.store import verify
from grokscope.store.run_store import RunStore
from grokscope.store.source import Source
from grokscope.thinning import spread_by_step

_STEPS_PER_READ = 16
"""The checkpoints that an iteration reads at once; opening a file for each took a tenth of `loss`'s time."""
_MOST_NAMED = 10
"""The most missing steps that an error names."""


class Trajectory:
    """The checkpoints of a run, read-only, with the task, the split and the log that belong to them.

    `trajectory[i]` and iteration return Snapshots; `trajectory[i:j]` returns a Trajectory of fewer steps.

    A trajectory never changes. `steps` is what was committed when it was opened. Reading a damaged checkpoint raises
    DamagedError; `without_damaged` returns a trajectory without the damaged checkpoints.
    """

    def __init__(
        self,
        config: RunConfig,
        source: Source,
        steps: Int[np.ndarray, " steps"],
        split: tasks.Split | None = None,
        lost: Mapping[int, DamagedError] | None = None,
        has_split: bool = True,
    ):
        self.config = config
        self.has_split = has_split
        """Whether the training set is known. Only an imported run and a trajectory in memory may lack it."""
        self.steps = steps
        """The steps of its checkpoints, increasing."""
        self.lost: Mapping[int, DamagedError] = lost or {}
        """The error of each checkpoint that `without_damaged` left out, by its step."""
        self._source = source
        self._given_split = split

    @classmethod
    def open(cls, path: Path | str, *, model: torch.nn.Module | None = None) -> "Trajectory":
        """Open a run's folder, also while the run trains.

        A damaged segment leaves the others readable: `damaged` names it, and `gaps` has the steps that are lost.

        Args:
            path: The run's folder.
            model: The module of a run that trained a module of your own.

        Returns:
            The trajectory of every committed checkpoint.

        Raises:
            GrokscopeError: The folder is not a run, or none of its checkpoints can be read.
        """
        own.remember(model)
        return cls.of_store(open_store(Path(path)))

    @classmethod
    def of_store(cls, store: RunStore) -> "Trajectory":
        """Return the trajectory of a store that `open_store` returned; raise GrokscopeError as `open` does."""
        if not len(store.steps):
            raise GrokscopeError(f"{store.folder} has no readable checkpoint. {' '.join(store.damaged)}".strip())
        record = store.record
        trajectory = cls(record.config, store, store.steps, recorded_split(record), has_split=record.has_split)
        if not has_recorded_data(record, trajectory.task, trajectory.split_or_none):
            raise GrokscopeError(
                f"{store.folder}: the task {trajectory.config.task.name!r} gives other examples or another split "
                f"than the run was trained on. Use the version of the task that made it."
            )
        return trajectory

    @classmethod
    def from_state_dicts(
        cls,
        config: RunConfig,
        state_dicts: Mapping[int, Mapping[str, Tensor]],
        split: "tasks.Split | tuple[Tensor, Tensor] | str | None" = None,
    ) -> "Trajectory":
        """Make a trajectory in memory from state dicts.

        Args:
            config: The config of the run that the state dicts come from.
            state_dicts: A state dict by its step, under TransformerLens' names and shapes. The attention's buffers
                (`mask`, `IGNORE`) are dropped.
            split: The training and test examples; by default the split that the config draws. "unknown" for
                state dicts whose training set is not known: then nothing is called train or test.

        Returns:
            The trajectory, without a folder and without a log.

        Raises:
            GrokscopeError: One error that names every missing key, unknown key and wrong shape.
        """
        config.validate()
        if isinstance(split, str) and split != "unknown":
            raise GrokscopeError(f"split: {split!r}. Allowed: indices of train and test examples, or 'unknown'.")
        task = tasks.build(config.task)
        source = memory_from_state_dicts(families.build(config.model, task), state_dicts)
        if isinstance(split, str):
            return cls(config, source, source.steps, has_split=False)
        return cls(config, source, source.steps, tasks.validated_split(split, len(task.inputs)))

    def without_damaged(self, steps: Iterable[int] | None = None) -> "Trajectory":
        """Read the checkpoints, and return a trajectory without those that are damaged.

        Its `gaps` contain the steps that were left out, and its `damaged` the reasons. Step 0 is checked too, because
        `initialization` reads it. The trajectory itself is returned if nothing is damaged.

        Args:
            steps: The steps to read; by default all of them.

        Raises:
            DamagedError: No undamaged checkpoint is left.
        """
        own = set(self.steps.tolist())
        suspects = own | ({0} & set(self._source.steps.tolist())) if steps is None else set(steps)
        damage = self._source.damage(suspects - self.lost.keys())
        if not damage:
            return self
        if own <= damage.keys():
            raise min(damage.items())[1]
        kept = self.steps[~np.isin(self.steps, list(damage))]
        return self._of(kept, {**self.lost, **damage})

    @cached_property
    def _data(self) -> tuple[tasks.Task, tasks.Split | None]:
        if self.has_split:
            return tasks.load(self.config.task, self.config.split_seed, self._given_split)
        return tasks.load_unsplit(self.config.task, self.config.split_seed), None

    @property
    def task(self) -> tasks.Task:
        """The task: every equation, its answer, and the structure that measures ask for."""
        return self._data[0]

    @property
    def split(self) -> tasks.Split:
        """The training and the test examples: `split.train` and `split.test` index `task.inputs`.

        Raise GrokscopeError if the training set is not known.
        """
        split = self._data[1]
        if split is None:
            raise GrokscopeError(UNKNOWN_TRAIN_SET)
        return split

    @property
    def split_or_none(self) -> tasks.Split | None:
        """The training and the test examples; None if the training set is not known."""
        return self._data[1]

    @cached_property
    def model(self) -> families.Model:
        """The architecture, whose `logits(parameters, tokens)` is a pure function."""
        return families.build(self.config.model, self.task)

    @property
    def path(self) -> Path | None:
        """The run's folder, or None for a trajectory in memory."""
        return self._source.folder

    @property
    def damaged(self) -> list[str]:
        """A sentence for each unreadable segment or log, and for each checkpoint left out, with what helps."""
        return [*self._source.damaged, *map(verify.explained, self.lost.values())]

    @property
    def gaps(self) -> list[tuple[int, int]]:
        """The stretches (first, last) of steps whose checkpoints and log are lost, and the checkpoints left out."""
        return sorted({*self._source.gaps, *((step, step) for step in self.lost)})

    @cached_property
    def log(self) -> Series:
        """Train and test loss (nats) and accuracy at every evaluated step, also between checkpoints.

        The row of step t belongs to the parameters after t updates. If the training set is not known, the log has
        `loss` and `accuracy` over all equations instead. Raise GrokscopeError for a trajectory in memory, which has
        no log; the measure `loss` recomputes the same quantities from the checkpoints.
        """
        log = self._source.log
        if log is None:
            raise GrokscopeError("A trajectory in memory has no log; evaluate the measure 'loss' instead.")
        return log_series(log, self._source.gaps, self.digest, self.config, None if self.has_split else self.task)

    @cached_property
    def initialization(self) -> dict[str, Tensor] | None:
        """The parameters of step 0, also if `steps` lacks it; None if there is no such checkpoint.

        A fork has those of its origin, back to the run that began at step 0.
        """
        if 0 in self._source.steps and 0 not in self.lost:
            return self._load(0)
        arrays = self._source.initialization()
        return {name: torch.from_numpy(arrays[name]) for name in self.model.shapes} if arrays else None

    @property
    def untrained(self) -> dict[str, Tensor]:
        """The parameters of the untrained model, a control: `initialization`, or else a draw of the same seed."""
        return self.initialization or self.model.initialize(self.config.init_seed)

    @property
    def origin(self) -> Mapping[str, Any] | None:
        """The run and step that a fork continues from, with the changed settings; None for any other trajectory."""
        return self._source.origin

    @property
    def stopped(self) -> Stop | None:
        """The step at which the rule `stop` ended the run, and the reason; None if no rule did.

        A run that was continued beyond its stop keeps it.
        """
        return self._source.stopped

    @property
    def end_step(self) -> int:
        """The step at which training is complete: `n_steps`, or the last one if the rule `stop` ended it there."""
        last = int(self.log.steps[-1]) if len(self.log) else -1
        return end_step(self.stopped, last, self.config.n_steps)

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the config, the steps and every parameter's checksum: equal bits, equal digest.

        A trajectory whose training set is not known has a digest of its own, because its measures differ.
        """
        return self.digest_of(self.steps)

    def digest_of(self, steps: Int[np.ndarray, " some"]) -> str:
        """Return the digest that a trajectory of these steps has, those left out as damaged included.

        Raise GrokscopeError for a step without a checkpoint.
        """
        if not np.isin(steps, self._source.steps).all():
            raise GrokscopeError("There is no checkpoint at some of these steps.")
        content = [[int(step), sorted(self._source.checksums(int(step)).items())] for step in steps]
        parts = [self.config.digest, content, *([] if self.has_split else ["unknown split"])]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def at(self, step: int | np.integer) -> Snapshot:
        """Return the snapshot of a checkpoint.

        Args:
            step: The number of optimizer updates before it.

        Raises:
            GrokscopeError: There is no checkpoint at this step; the error names the nearest ones.
            DamagedError: The checkpoint is damaged.
        """
        if step not in self.steps:
            below, above = self.steps[self.steps < step], self.steps[self.steps > step]
            nearest = [str(int(neighbour)) for neighbour in (*below[-1:], *above[:1])]
            raise GrokscopeError(f"There is no checkpoint at step {step}; the nearest: {' and '.join(nearest)}.")
        return Snapshot(int(step), self._load(int(step)), self.model)

    def _load(self, step: int) -> dict[str, Tensor]:
        stacked = self._source.read(self.model.shapes, [step])
        return {name: torch.from_numpy(array[0]) for name, array in stacked.items()}

    @property
    def first(self) -> Snapshot:
        """The snapshot of the first step."""
        return self[0]

    @property
    def last(self) -> Snapshot:
        """The snapshot of the last step."""
        return self[-1]

    def parameter(self, name: str) -> Float[Tensor, "steps ..."]:
        """Return one parameter over all steps, in a few large reads.

        Args:
            name: The parameter's TransformerLens name, such as "embed.W_E".

        Returns:
            The parameter at each step, stacked along a leading step axis.

        Raises:
            GrokscopeError: The model has no such parameter.
            DamagedError: A checkpoint is damaged.
        """
        if name not in self.model.shapes:
            raise GrokscopeError(unknown_name("parameter", name, list(self.model.shapes)))
        return torch.from_numpy(self._source.read([name], map(int, self.steps))[name])

    def matrix(self, part: str) -> Float[Tensor, "steps rows columns"]:
        """Return a matrix of the network over all steps, such as the "embedding" (`model.families.Model.matrix`).

        Raises:
            LacksPartError: The network has no such matrix.
            DamagedError: A checkpoint is damaged.
        """
        matrix = self.model.matrix(part)
        return matrix.read({name: self.parameter(name) for name in matrix.parameters})

    def thin(self, n: int) -> "Trajectory":
        """Return a trajectory of at most `n` steps, the first and the last included.

        The steps are spread over the list and over the logarithm of the step (`grokscope.thinning.spread_by_step`).
        """
        if n < 1:
            raise GrokscopeError(f"thin({n}): allowed: a whole number from 1.")
        if n >= len(self):
            return self
        return self._of(self.steps[spread_by_step(self.steps, n)])

    def select(self, steps: Iterable[int | np.integer]) -> "Trajectory":
        """Return a trajectory of these steps, in increasing order; raise GrokscopeError if it lacks one of them."""
        selected = np.unique(np.array(list(steps)))
        if not len(selected):
            raise GrokscopeError("No step is selected.")
        missing = selected[~np.isin(selected, self.steps)]
        if len(missing):
            named = ", ".join(map(str, missing[:_MOST_NAMED])) + (" …" if len(missing) > _MOST_NAMED else "")
            raise GrokscopeError(f"There is no checkpoint at: {named}.")
        return self._of(selected.astype(np.int64))

    def _of(self, steps: Int[np.ndarray, " steps"], lost: Mapping[int, DamagedError] | None = None) -> "Trajectory":
        lost = self.lost if lost is None else lost
        return Trajectory(self.config, self._source, steps, self._given_split, lost, self.has_split)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[Snapshot]:
        all_steps = self.steps.tolist()
        for first in range(0, len(all_steps), _STEPS_PER_READ):
            steps = all_steps[first : first + _STEPS_PER_READ]
            stacked = self._source.read(self.model.shapes, steps)
            for i, step in enumerate(steps):
                # A copy, because a view would keep all checkpoints of this read in memory.
                parameters = {name: torch.from_numpy(array[i].copy()) for name, array in stacked.items()}
                yield Snapshot(step, parameters, self.model)

    @overload
    def __getitem__(self, i: int) -> Snapshot: ...
    @overload
    def __getitem__(self, i: slice) -> "Trajectory": ...
    def __getitem__(self, i: Any) -> "Snapshot | Trajectory":
        if isinstance(i, slice):
            return self.select(self.steps[i])
        return self.at(int(self.steps[i]))

    def _repr_html_(self) -> str:
        rows: list[list[object]] = [
            ["task", f"{self.task.formula}, {self._trained_share}"],
            ["checkpoints", f"{len(self):,}, steps {self.steps[0]:,} to {self.steps[-1]:,}"],
            *(["lost", f"steps {first:,} to {last:,}"] for first, last in self.gaps),
            *(["damaged", sentence] for sentence in self.damaged),
        ]
        if self.path is not None and len(self.log):
            rows += [
                [name, notebook.Html(f"{notebook.format_number(row[-1])} {notebook.sparkline(self.log.steps, row)}")]
                for name, row in self.log.arrays.items()
            ]
        return notebook.html_table(f"Trajectory {self.path or 'in memory'}", [], rows)

    @property
    def _trained_share(self) -> str:
        split = self.split_or_none
        if self.config.task.fresh:
            return "trained on fresh batches"
        return f"{len(split.train) / len(self.task.inputs):.0%} trained on" if split else "unknown training set"

    def __repr__(self) -> str:
        where = self.path or "in memory"
        return f"Trajectory({where}, {len(self)} checkpoints, steps {self.steps[0]} to {self.steps[-1]})"
