"""Several tasks in one run: they share their weights, and the first token of an example names its task."""

import torch

from grokscope import tasks
from grokscope.config import TaskConfig, mixtures
from grokscope.errors import GrokscopeError
from grokscope.tasks import Part, Task


def mixture(config: TaskConfig) -> Task:
    """Return the examples of several tasks, each with a task token before it, a split and a log of its own.

    Element i is the same token in every task, and so is each sign, such as "=". The task tokens come last.

    Raises:
        GrokscopeError: A member has several answers per example, or the members have different numbers of tokens.
    """
    names = mixtures.member_names(config)
    members = [tasks.build(member) for member in mixtures.members(config)]
    for member in members:
        member.require_single_answer()
    lengths = {name: member.n_ctx for name, member in zip(names, members, strict=True)}
    if len(set(lengths.values())) > 1:
        described = ", ".join(f"{name} {n}" for name, n in lengths.items())
        raise GrokscopeError(
            f"task.mixture: its tasks have examples of different lengths ({described}). Allowed: one."
        )
    n_elements = max(member.n_elements for member in members)
    n_signs = max(member.d_vocab - member.n_elements for member in members)
    inputs, parts, n_before = [], [], 0
    for i, (member, settings) in enumerate(zip(members, mixtures.members(config), strict=True)):
        tokens = member.inputs + (member.inputs >= member.n_elements) * (n_elements - member.n_elements)
        task_token = torch.full((len(tokens), 1), n_elements + n_signs + i)
        inputs.append(torch.cat([task_token, tokens], 1))
        parts.append(Part(names[i], slice(n_before, n_before + len(tokens)), settings.train_fraction))
        n_before += len(tokens)
    return Task(
        name=config.name,
        formula=" and ".join(member.formula for member in members),
        inputs=torch.cat(inputs),
        labels=torch.cat([member.labels for member in members]),
        n_elements=n_elements,
        d_vocab=n_elements + n_signs + len(members),
        d_vocab_out=max(member.d_vocab_out for member in members),
        sign_names=(*(max(members, key=lambda member: member.d_vocab - member.n_elements).signs), *names),
        parts=tuple(parts),
    )
