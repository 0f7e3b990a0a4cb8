"""A model on all pairs of operands: on a circle as one grid, in a group in batches that fit into memory."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokscope.model.equation_batch import Equations
from grokscope.model.families import Model
from grokscope.model.forward import Hook, Parameters
from grokscope.model.losses import cross_entropy
from grokscope.tasks import Split, Task
from grokscope.tasks.circle import Circle, on_circle
from grokscope.tasks.group_pairs import Composition

_LOGITS_PER_BATCH = 2**24

LogitBatches = Iterable[tuple[slice, Tensor]]
"""Batches of pairs: the slice of the pairs in the order of the group's table, and their logits (pairs, n).

It can be iterated any number of times.
"""


@dataclass(frozen=True, eq=False)
class CircleGrid:
    """A model on all pairs (i, j) of positions on the circle of a circular task, as an n × n grid.

    - Equations with an operand off the circle are left out.
    - Logits and activations cover all pairs, also those that have no equation in the task. Losses leave these out.
    - The logits of a grid are n² · classes numbers in memory.
    """

    circle: Circle
    model: Model
    equations: Equations
    """All pairs (i, j) in tokens; j changes fastest."""
    labels: Int[Tensor, "n n"]
    """The answer of each pair that the run was trained on, outliers and random labels included. It is the correct
    answer for a pair without an equation."""
    is_equation: Bool[Tensor, "n n"]
    """Whether the task has an equation with each pair."""
    split: Split | None
    """The training and the test examples; None if the training set is unknown."""

    @classmethod
    def of(cls, model: Model, task: Task, split: Split | None) -> "CircleGrid":
        """Return the grid of a task.

        Raises:
            GrokscopeError: The task has no circle, or its equations do not form a table over two operands.
        """
        circle = on_circle(task)
        examples, is_equation = circle.examples, circle.examples >= 0
        equations = model.equations(rearrange(circle.inputs, "i j n_ctx -> (i j) n_ctx"))
        labels = torch.where(is_equation, task.labels[examples], circle.tokens[circle.answers])
        return cls(circle, model, equations, labels, is_equation, split)

    @property
    def is_train(self) -> Bool[Tensor, "n n"]:
        """Whether each pair belongs to the train split, which must be known."""
        assert self.split is not None
        return torch.isin(self.circle.examples, self.split.train)

    @property
    def is_test(self) -> Bool[Tensor, "n n"]:
        """Whether each pair belongs to the test split, which must be known."""
        assert self.split is not None
        return torch.isin(self.circle.examples, self.split.test)

    @property
    def answer_tokens(self) -> Int[Tensor, "n n"]:
        """The token of each pair's correct answer; ignores outliers and random labels."""
        return self.circle.tokens[self.circle.answers]

    def mean_loss(self, logits: Float[Tensor, "n n classes"]) -> Float[Tensor, ""]:
        """Return the mean `pair_losses` over the task's equations, with the correct answers."""
        return pair_losses(logits, self.answer_tokens)[self.is_equation].mean()

    def mean_over_equations(self, by_answer: Float[Tensor, " n"]) -> Float[Tensor, ""]:
        """Return the mean over the task's equations of a quantity that the answer's position determines."""
        return _mean_over_equations(by_answer, self.circle.answers[self.is_equation])

    @torch.no_grad()
    def logits(self, parameters: Parameters, hook: Hook | None = None) -> Float[Tensor, "n n classes"]:
        """Return the logits of every pair, computed in the dtype of the parameters and converted to float64.

        Args:
            parameters: All parameters of the model.
            hook: Reads or replaces activations; see `Model.logits`.
        """
        n = len(self.circle)
        return self.model.logits(parameters, self.equations, hook=hook).double().unflatten(0, (n, n))

    @torch.no_grad()
    def logits_without(self, parameters: Parameters, part: str) -> Float[Tensor, "n n classes"]:
        """Return the logits of every pair if "attn" or "mlp" adds nothing to the residual stream, in any block.

        Raise LacksPartError for a network without a residual stream.
        """
        self.model.require("sublayers", self.model.sublayers)
        n, d_model = len(self.circle), self.model.config.d_model
        masks = {
            name: torch.full((1, 1, 1), float(not name.endswith(f"{part}_out"))).expand(n * n, 1, d_model)
            for name in self.model.sublayers
        }
        return self.model.logits(parameters, self.equations, masks).double().unflatten(0, (n, n))

    def activations(
        self, parameters: Parameters
    ) -> tuple[list[Float[Tensor, "n n d_mlp"]], list[Float[Tensor, "n n n_heads"]]]:
        """Return the neurons and the attention at the answer's position, for every pair.

        Returns:
            For each layer, the outputs of the activation function (n, n, d_mlp).
            For each layer, the attention of each head to the first operand (n, n, n_heads). Empty without attention.

        Raises:
            LacksPartError: The network has no neurons.
        """
        self.model.require("neurons", self.model.neurons)
        neurons, attention, n = [], [], len(self.circle)
        first = self.circle.task.operand_positions[0]

        def record(name: str, value: Tensor) -> Tensor:
            if name in self.model.neurons:
                neurons.append(value[:, -1].unflatten(0, (n, n)))
            elif name in self.model.attention:
                attention.append(value[:, :, -1, first].unflatten(0, (n, n)))
            return value

        self.logits(parameters, record)
        return neurons, attention


def pair_losses(logits: Float[Tensor, "n n classes"], labels: Int[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """Return the softmax cross-entropy of each pair in nats and float64, for any loss that the run was trained on."""
    return cross_entropy(logits.flatten(0, 1), labels.flatten()).unflatten(0, labels.shape)


class GroupLogits:
    """A model's logits for all pairs of elements of a group, summarised without holding all of them in memory.

    The mean over the answers is subtracted from the logits of each pair, because a softmax ignores it. Answers that
    are not group elements, such as zero for multiplication, have no logit here. `batches` computes the logits of one
    checkpoint; `product_means` and `losses` reduce them. As in a `CircleGrid`, losses leave out the pairs without an
    equation.
    """

    def __init__(self, model: Model, task: Task, split: Split | None, composition: Composition):
        examples = composition.examples.flatten()
        self.model, self.tokens = model, composition.tokens
        inputs = model.equations(composition.inputs.flatten(0, 1))
        self.parts = inputs.parts(max(1, _LOGITS_PER_BATCH // len(composition)))
        self.table = torch.from_numpy(composition.group.table)
        self.product = self.table.flatten()
        element = torch.full((task.d_vocab_out,), -1)
        element[composition.tokens] = torch.arange(len(composition))
        self.labels = element[task.labels[examples]]
        # The answer of an outlier may not be a group element.
        trained = torch.empty(0, dtype=torch.long) if split is None else split.train
        self.is_trained = torch.isin(examples, trained) & (self.labels >= 0)
        self.is_equation = examples >= 0

    def batches(self, parameters: Parameters) -> LogitBatches:
        """Return the logits at these parameters; a single batch is stored, several are recomputed per iteration."""
        batches = _RecomputedBatches(self, parameters)
        return list(batches) if len(self.parts) == 1 else batches

    def product_means(
        self, batches: LogitBatches, orders: Int[Tensor, "n_orders n"]
    ) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n_orders n n"], Float[Tensor, ""]]:
        """Return the mean logit of each answer over the n pairs of each product.

        Args:
            batches: The logits, from `batches`.
            orders: Permutations of the elements. In an order, element x is relabelled as order[x], both as an operand
                and as an answer.

        Returns:
            means: The mean logit over the pairs (a, b) with a·b = product, for each product and answer.
            shuffled means: The same after each relabelling.
            mean square: The mean square of all n³ logits.
        """
        n = len(self.tokens)
        relabelled = [self.table[order][:, order].flatten() for order in orders]
        sums, square = torch.zeros(1 + len(orders), n, n, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for rows, logits in batches:
            square += logits.square().sum()
            for product_sums, product in zip(sums, [self.product, *relabelled], strict=True):
                product_sums.index_add_(0, product[rows], logits)
        shuffled = [product_sums[:, order.argsort()] for product_sums, order in zip(sums[1:], orders, strict=True)]
        return sums[0] / n, torch.stack(shuffled) / n, square / n**3

    def mean_over_equations(self, by_product: Float[Tensor, " n"]) -> Float[Tensor, ""]:
        """Return the mean over the task's equations of a quantity that the product determines."""
        return _mean_over_equations(by_product, self.product[self.is_equation])

    def losses(
        self, batches: LogitBatches, removed: Float[Tensor, "n_removed n n"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, " n_removed"]]:
        """Return mean cross-entropies of the logits, and of the logits with a part subtracted.

        Args:
            batches: The logits, from `batches`.
            removed: Tables of logits to subtract, one at a time: removed[·, product, answer].

        Returns:
            loss: Over the task's equations, with the correct answers.
            train loss: Over the train pairs, with the answers that the run was trained on; NaN if they are unknown.
            excluded losses: The train loss after each subtraction.
        """
        loss, train_loss = torch.zeros(2, dtype=torch.float64)
        excluded = torch.zeros(len(removed), dtype=torch.float64)
        for rows, logits in batches:
            loss += cross_entropy(logits, self.product[rows])[self.is_equation[rows]].sum()
            is_trained = self.is_trained[rows]
            logits, product, labels = (x[is_trained] for x in (logits, self.product[rows], self.labels[rows]))
            train_loss += cross_entropy(logits, labels).sum()
            for i, table in enumerate(removed):
                excluded[i] += cross_entropy(logits - table[product], labels).sum()
        n_trained = self.is_trained.sum()
        return loss / self.is_equation.sum(), train_loss / n_trained, excluded / n_trained


@dataclass(frozen=True, eq=False)
class _RecomputedBatches:
    """The batches of logits of one checkpoint, computed at each iteration."""

    group_logits: GroupLogits
    parameters: Parameters

    def __iter__(self) -> Iterator[tuple[slice, Float[Tensor, "pairs n"]]]:
        model, tokens, start = self.group_logits.model, self.group_logits.tokens, 0
        for part in self.group_logits.parts:
            logits = model.logits(self.parameters, part)[:, tokens].double()
            yield slice(start, start + len(part)), logits - logits.mean(-1, keepdim=True)
            start += len(part)


def _mean_over_equations(values: Float[Tensor, " n"], answers: Int[Tensor, " n_equations"]) -> Float[Tensor, ""]:
    """Return the mean of values[answers]."""
    # If every answer has n equations, each weight is exactly 1.
    weights = torch.bincount(answers, minlength=len(values)).to(values) / len(values)
    return (weights * values).sum() / weights.sum()
