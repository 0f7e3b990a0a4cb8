"""A model on the grid of a circular task's pairs (i, j): its logits, its neurons, its attention, and its losses.

All that is here is on equations with both operands on the circle, and in the circle's order. Logits of a grid are
n² · classes numbers at once.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokscope.model.equation_batch import Equations
from grokscope.model.forward import Hook, Parameters
from grokscope.model.losses import cross_entropy
from grokscope.model.transformer import Model
from grokscope.tasks import Split, Task
from grokscope.tasks.circle import Circle, on_circle
from grokscope.tasks.composition import Composition


@dataclass(frozen=True, eq=False)
class Grid:
    """A task's equations on its circle, as a model sees them."""

    circle: Circle
    model: Model
    equations: Equations
    """The equations of all pairs (i, j), j changing fastest."""
    labels: Int[Tensor, "n n"]
    """Each pair's answer as the run learned it, outliers and random labels included."""
    is_train: Bool[Tensor, "n n"]
    """Which pairs are trained on."""

    @classmethod
    def of(cls, model: Model, task: Task, split: Split) -> "Grid":
        """Return the grid of a task; raise GrokscopeError, saying why, if the task has no circle."""
        circle = on_circle(task)
        is_train = torch.zeros(len(task.inputs), dtype=torch.bool)
        is_train[split.train] = True
        inputs = rearrange(task.inputs[circle.examples], "i j n_ctx -> (i j) n_ctx")
        return cls(circle, model, model.equations(inputs), task.labels[circle.examples], is_train[circle.examples])

    @property
    def right(self) -> Int[Tensor, "n n"]:
        """Each pair's right answer, whatever the run learned."""
        return self.circle.tokens[self.circle.answers]

    @torch.no_grad()
    def logits(self, parameters: Parameters, hook: Hook | None = None) -> Float[Tensor, "n n classes"]:
        """Return every pair's logits, computed in the parameters' type, in float64; the hook is `Model.logits`'s."""
        n = len(self.circle)
        return self.model.logits(parameters, self.equations, hook=hook).double().unflatten(0, (n, n))

    def without(self, parameters: Parameters, part: str) -> Float[Tensor, "n n classes"]:
        """Return the logits with a part, "attn" or "mlp", of every block adding nothing to the residual stream."""
        c = self.model.config
        kept = {name: torch.full((1, 1, 1), float(name != part)) for name in ("attn", "mlp")}
        shape = (len(self.equations), -1, c.d_model)
        masks = {
            f"blocks.{layer}.hook_{name}_out": mask.expand(shape[0], 1, c.d_model)
            for layer in range(c.n_layers)
            for name, mask in kept.items()
        }
        n = len(self.circle)
        with torch.no_grad():
            return self.model.logits(parameters, self.equations, masks).double().unflatten(0, (n, n))

    def activations(self, parameters: Parameters) -> tuple[list[Tensor], list[Tensor]]:
        """Return, for each block, the neurons (n, n, d_mlp) and the attention (n, n, heads) at the answer's position.

        The neurons are what the activation function gives; the attention is each head's to the first operand.
        """
        neurons, attention, n = [], [], len(self.circle)

        def keep(name: str, value: Tensor) -> Tensor:
            if name.endswith("hook_post"):
                neurons.append(value[:, -1].unflatten(0, (n, n)))
            else:
                attention.append(value[:, :, -1, 0].unflatten(0, (n, n)))
            return value

        self.logits(parameters, keep)
        return neurons, attention


def pair_losses(logits: Float[Tensor, "n n classes"], labels: Int[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """Return each pair's cross-entropy in nats, in float64: that of a softmax, whatever the run was trained on."""
    return cross_entropy(logits.flatten(0, 1), labels.flatten()).unflatten(0, labels.shape)


_NUMBERS_AT_ONCE = 2**24
Reading = Iterable[tuple[slice, Tensor]]
"""Which pairs, of all in the order of the group's table, and their logits (pairs, n), as often as one asks."""


class PairLogits:
    """What is read off the logits of every pair of elements, each pair's mean over the answers taken off.

    Softmax does not see that mean. Answers that are no element (zero, for multiplication) have no logit here.
    """

    def __init__(self, model: Model, task: Task, split: Split, composition: Composition):
        examples = composition.examples.flatten()
        self.model, self.tokens = model, composition.tokens
        self.parts = model.equations(task.inputs[examples]).parts(max(1, _NUMBERS_AT_ONCE // len(composition)))
        self.table = torch.from_numpy(composition.group.table)
        self.product = self.table.flatten()
        position = torch.full((task.d_vocab_out,), -1)
        position[composition.tokens] = torch.arange(len(composition))
        self.labels = position[task.labels[examples]]
        # An outlier's answer may be no element.
        self.is_trained = torch.isin(examples, split.train) & (self.labels >= 0)

    def read(self, parameters: Parameters) -> Reading:
        """Return the logits at some parameters: a single part is computed once, several anew at each reading."""
        reading = _Reading(self, parameters)
        return list(reading) if len(self.parts) == 1 else reading

    def by_product(
        self, reading: Reading, orders: Int[Tensor, "n_orders n"]
    ) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n_orders n n"], Float[Tensor, ""]]:
        """Return the mean logit of each answer over the pairs of each product, and the mean square of all logits.

        The means come as they are and with the elements relabelled in each of some orders, so that x, as an operand
        and as an answer, stands for order[x].
        """
        n = len(self.tokens)
        relabelled = [self.table[order][:, order].flatten() for order in orders]
        sums, square = torch.zeros(1 + len(orders), n, n, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for rows, logits in reading:
            square += logits.square().sum()
            for one, product in zip(sums, [self.product, *relabelled], strict=True):
                one.index_add_(0, product[rows], logits)
        shuffled = [one[:, order.argsort()] for one, order in zip(sums[1:], orders, strict=True)]
        return sums[0] / n, torch.stack(shuffled) / n, square / n**3

    def losses(
        self, reading: Reading, removed: Float[Tensor, "n_removed n n"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, " n_removed"]]:
        """Return the mean loss over all pairs with their right answers, over those trained on, and without logits.

        The last is the loss on the pairs trained on of the logits less removed[·, product, answer]. Where trained on,
        pairs have the answers that they are trained on.
        """
        loss, train_loss = torch.zeros(2, dtype=torch.float64)
        without = torch.zeros(len(removed), dtype=torch.float64)
        for rows, logits in reading:
            loss += cross_entropy(logits, self.product[rows]).sum()
            trained = self.is_trained[rows]
            logits, product, labels = logits[trained], self.product[rows][trained], self.labels[rows][trained]
            train_loss += cross_entropy(logits, labels).sum()
            for i, one in enumerate(removed):
                without[i] += cross_entropy(logits - one[product], labels).sum()
        n_trained = self.is_trained.sum()
        return loss / len(self.product), train_loss / n_trained, without / n_trained


@dataclass(frozen=True, eq=False)
class _Reading:
    logits: PairLogits
    parameters: Parameters

    def __iter__(self) -> Iterator[tuple[slice, Float[Tensor, "some n"]]]:
        start = 0
        for part in self.logits.parts:
            found = self.logits.model.logits(self.parameters, part)[:, self.logits.tokens].double()
            yield slice(start, start + len(part)), found - found.mean(-1, keepdim=True)
            start += len(part)
