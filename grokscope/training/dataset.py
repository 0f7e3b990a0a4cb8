"""The data of a run: the task, its split into train and test, and the batch of each step."""

import math
from fractions import Fraction

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from grokscope import rng, tasks
from grokscope.config import RunConfig
from grokscope.opened_run import data_digest
from grokscope.tasks import drawn


class Dataset:
    """All equations of a run's task, split into train and test, with the training batch of each step.

    Args:
        config: A valid config.
        device: The device that training uses.

    Attributes:
        task: The task, on the CPU.
        split: The indices of the train and test equations, on the CPU.
        inputs: The tokens of all equations (n_examples, n_ctx), on `device`.
        labels: The answers of all equations (n_examples), or their targets (n_examples, n_ctx), on `device`.
        train: `split.train` on `device`.
        test: `split.test` on `device`.
        batch_size: The number of equations in a batch. The last batch of an epoch may be smaller.
    """

    def __init__(self, config: RunConfig, device: torch.device):
        self.task, self.split = tasks.load(config.task, config.split_seed)
        self.inputs, self.labels = self.task.inputs.to(device), self.task.labels.to(device)
        self.train, self.test = self.split.train.to(device), self.split.test.to(device)
        n_train = len(self.split.train)
        # Fraction is exact; in floating point 0.28 · 25 exceeds 7.
        largest = math.ceil(Fraction(str(config.batch_share)) * n_train)
        self.batch_size = min(config.batch_size, largest) if config.batch_size else n_train
        if config.task.fresh and config.batch_size:
            self.batch_size = config.batch_size
        self._is_full_batch, self._seed = config.batch_size is None, config.training_seed
        self._epoch, self._order = -1, torch.arange(n_train)
        self._test_keys = drawn.row_keys(self.task.inputs[self.split.test]) if config.task.fresh else np.empty(0)

    @property
    def digest(self) -> str:
        """The SHA-256 of the equations, the answers and the split, which the run's record contains."""
        return data_digest(self.task, self.split)

    def batch_indices(self, step: int) -> Int[Tensor, " batch"]:
        """Return the batch of the update that follows `step`, as indices into `split.train`, on the CPU.

        The batch is a function of the training seed and the step alone. Minibatches pass through the training set in
        a new random order each epoch.
        """
        if self._is_full_batch:
            return self._order
        n_train = len(self.split.train)
        epoch, position = divmod(step, -(-n_train // self.batch_size))
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = torch.from_numpy(rng.permutation("batches", self._seed, epoch, n_train))
        return self._order[position * self.batch_size :][: self.batch_size]

    def fresh_batch(self, step: int) -> tasks.Examples:
        """Return the inputs and the labels of the batch that follows `step`, drawn from all but the test set.

        The batch is a function of the training seed and the step alone. A task without a sampler has all its examples
        in `inputs`, so the batch is drawn from the training set, with repetitions.
        """
        if self.task.sampler is not None:
            inputs, labels = drawn.draw_fresh(self.task.sampler, self.batch_size, self._seed, step, self._test_keys)
        else:
            chosen = rng.integers("fresh batch", self._seed, step, self.batch_size) % len(self.split.train)
            examples = self.split.train[torch.from_numpy(chosen.astype("int64"))]
            inputs, labels = self.task.inputs[examples], self.task.labels[examples]
        return inputs.to(self.inputs.device), labels.to(self.inputs.device)
