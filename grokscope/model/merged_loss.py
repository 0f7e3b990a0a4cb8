"""The mean loss of the merged form and its gradient with respect to the tables, in parts that fit in a core's cache.

A part is a few hundred examples. Its neurons are computed, used forward and backward, and forgotten, so they never
leave the cache, and memory does not grow with the neurons of the whole batch. Parts are independent, and their
results are added in order, so the bits do not depend on the number of threads that compute them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from grokscope import threads
from grokscope.model.embedding_bag import inner_products, weighted_sums
from grokscope.model.equation_batch import Equations
from grokscope.model.merged import Tables

_PART_VALUES = 5 * 2**16
"""The most values in the neurons and logits of a part: 1.25 MB in float32, about half of an L2 cache."""
_BLOCK_VALUES = 2**22
"""The most values in the gradients of a block, whose contributions to the tables are summed at once: 16 MB."""


def block_sizes(n_examples: int, n_columns: int) -> list[int]:
    """Return the sizes of the blocks of a batch, equal but for the last; only one block needs memory at a time."""
    n_blocks = -(-n_examples * n_columns // _BLOCK_VALUES)
    size = -(-n_examples // n_blocks)
    return [min(size, n_examples - start) for start in range(0, n_examples, size)]


def n_parts(n_examples: int, n_columns: int) -> int:
    """Return the number of parts of a block."""
    return -(-n_examples * n_columns // _PART_VALUES)


@dataclass(frozen=True, eq=False)
class Examples:
    """Examples with their answers, and the loss that is averaged over them."""

    act_fn: str
    equations: Equations
    labels: Int[Tensor, " n"]
    dtype: torch.dtype
    """The precision of the log-softmax."""


@torch.no_grad()
def value_and_gradient(tables: Tables, examples: Examples) -> tuple[Float[Tensor, ""], Tables]:
    """Return the mean cross-entropy −log softmax(logits)[label], and its gradient with respect to each table.

    Args:
        tables: The tables of the batch, without a graph.
        examples: The equations and their answers.
    """
    n_examples = len(examples.labels)
    n_block = block_sizes(n_examples, len(tables.bias))[0]
    losses, gradients = [], []
    for equations, labels in zip(examples.equations.parts(n_block), examples.labels.split(n_block), strict=True):
        block = _Block(tables, replace(examples, equations=equations, labels=labels), 1 / n_examples)
        loss, gradient = block.value_and_gradient()
        losses.append(loss)
        # Added at once, so that memory does not grow with the number of blocks.
        gradients = [Tables(*map(total, zip(*gradients, gradient, strict=True)))]
    return total(losses), gradients[0]


class _Block:
    """A block of examples, with the buffers that its parts share.

    Args:
        tables: The tables of the batch.
        examples: The examples of the block.
        share: The weight of each example in the mean loss.
    """

    def __init__(self, tables: Tables, examples: Examples, share: float):
        self._tables, self._examples, self._share = tables, examples, share
        self._d_mlp, d_vocab_out = tables.W_out_U.shape
        self._logits = slice(self._d_mlp, self._d_mlp + d_vocab_out)
        self._rows = examples.equations.rows
        self._weights, self._last_weight = _attention(tables.scores, self._rows)
        n, n_columns = len(self._rows), len(tables.bias)
        self._gradient = tables.bias.new_empty(n, n_columns)

    def value_and_gradient(self) -> tuple[Float[Tensor, ""], Tables]:
        """Return the block's contributions to the loss and to its gradients."""
        n, n_columns = self._gradient.shape
        size = -(-n // n_parts(n, n_columns))
        parts = [slice(start, min(start + size, n)) for start in range(0, n, size)]
        results = threads.compute([partial(self._part, part) for part in parts])
        losses, W_gradients, bias_gradients, weight_gradients = zip(*results, strict=True)
        contributions = self._contribution_gradient()
        scores = self._score_gradient(torch.cat(weight_gradients))
        return total(losses), Tables(scores, contributions, total(bias_gradients), total(W_gradients).T)

    @torch.no_grad()
    def _part(self, part: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the loss of a part, and its gradients by W_out_U, transposed, by the bias and by the weights.

        The part of `_gradient` receives the gradient by neurons and logits.
        """
        _, contributions, bias, W_out_U = self._tables
        contributions, rows = contributions.flatten(0, 1), self._examples.equations.entry_rows[part]
        mixed = weighted_sums(self._weights[part], contributions, rows).add_(bias)
        logits = mixed[:, self._logits]
        post = mixed[:, : self._d_mlp]
        if self._examples.act_fn == "relu":
            post.relu_()
        else:
            pre, post = post, F.gelu(post)
        logits.addmm_(post, W_out_U)
        loss = self._loss(logits, self._examples.labels[part], self._gradient[part, self._logits])
        gradient = self._gradient[part]
        gradient[:, self._logits.stop :] = 0
        neurons, by_logits = gradient[:, : self._d_mlp], gradient[:, self._logits]
        torch.mm(by_logits, W_out_U.T, out=neurons)
        if self._examples.act_fn == "relu":
            torch.ops.aten.threshold_backward.grad_input(neurons, post, 0, grad_input=neurons)
        else:
            torch.ops.aten.gelu_backward.grad_input(neurons, pre, grad_input=neurons)
        return loss, by_logits.T @ post, gradient.sum(0), inner_products(gradient, contributions, rows)

    def _loss(
        self,
        logits: Float[Tensor, "part d_vocab_out"],
        labels: Int[Tensor, " part"],
        gradient: Float[Tensor, "part d_vocab_out"],
    ) -> Float[Tensor, ""]:
        """Return the sum of the losses of a part times `share`, and write its gradient by the logits."""
        x = logits.to(self._examples.dtype, copy=True)
        x.sub_(x.amax(1, keepdim=True))
        of_label = x.gather(1, labels[:, None])
        total = x.exp_().sum(1, keepdim=True)
        loss = (total.log() - of_label).sum() * self._share
        x.mul_(total.reciprocal_().mul_(self._share))
        x.scatter_add_(1, labels[:, None], x.new_full((len(x), 1), -self._share))
        gradient.copy_(x)
        return loss

    def _contribution_gradient(self) -> Float[Tensor, "head n_rows columns"]:
        """Return the weighted sum of the examples of each row, with the rows of some positions by each thread."""
        order, examples, all_starts = self._examples.equations.bags
        ordered = self._weights.flatten().index_select(0, order)
        n_positions, n_entries = self._rows.shape[1], self._weights.numel() // self._rows.shape[1]

        @torch.no_grad()
        def of_positions(positions: slice) -> Tensor:
            part = slice(positions.start * n_entries, positions.stop * n_entries)
            starts = all_starts.view(n_positions, -1)[positions].flatten() - part.start
            return F.embedding_bag(
                examples[part], self._gradient, starts, per_sample_weights=ordered[part], mode="sum"
            )

        # A sum has the same bits in any division of the rows.
        n_tasks = threads.n_active()
        bounds = [n_positions * i // n_tasks for i in range(n_tasks + 1)]
        positions = [slice(*pair) for pair in pairwise(bounds) if pair[0] < pair[1]]
        sums = threads.compute([partial(of_positions, part) for part in positions])
        by_row = sums[0] if len(sums) == 1 else torch.cat(sums)
        return rearrange(by_row, "(row head) columns -> head row columns", head=self._tables.scores.shape[1])

    def _score_gradient(self, by_weight: Float[Tensor, "n entries"]) -> Float[Tensor, "n_scores heads"]:
        """Return the gradient by the scores from that by the weights: the derivative of the softmax."""
        n, n_before = self._rows.shape
        weights = self._weights.view(n, n_before, -1)
        gradient = by_weight.view(n, n_before, -1) * weights
        total = gradient.sum(1)
        gradient.sub_(weights * total[:, None])
        by_score = torch.zeros_like(self._tables.scores)
        by_score[:-1].index_add_(0, self._rows.flatten(), gradient.flatten(0, 1))
        torch.sum(self._last_weight * total, 0, out=by_score[-1]).neg_()
        return by_score


def _attention(
    scores: Float[Tensor, "n_scores heads"], rows: Int[Tensor, "n position"]
) -> tuple[Float[Tensor, "n entries"], Float[Tensor, "n head"]]:
    """Return the attention pattern over the earlier positions, and that over the last position."""
    # Along the examples, elementwise operations are faster than a softmax over a few positions.
    by_head = scores.T.contiguous()
    exponents = [by_head.index_select(1, tokens) for tokens in rows.unbind(1)]
    last = by_head[:, -1:]
    largest = torch.maximum(exponents[0], last)
    for exponent in exponents[1:]:
        largest = torch.maximum(largest, exponent)
    total = last_exponential = (last - largest).exp_()
    for exponent in exponents:
        total = total + exponent.sub_(largest).exp_()
    inverse = total.reciprocal()
    weights = torch.cat([exponent.mul_(inverse) for exponent in exponents])
    return weights.T.contiguous(), last_exponential.mul_(inverse).T


def total(tensors: Iterable[Tensor]) -> Tensor:
    """Return the sum of tensors, added in order to the first of them."""
    first, *others = tensors
    for tensor in others:
        first.add_(tensor)
    return first
