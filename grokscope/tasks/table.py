"""A user's own binary operation, given by the table of its answers."""

import torch

from grokscope import tasks
from grokscope.algebra import tables
from grokscope.config import TaskConfig
from grokscope.tasks import Task


def table(config: TaskConfig) -> Task:
    """Return the operation of the config's table, an equation for each entry that is a number.

    In Python ``TaskConfig(name="table", table=grokscope.algebra.tabulate(lambda a, b: a ^ b, 32))`` makes one of any
    function; on the command line and in TOML ``@FILE`` stands for a file's text. The table is part of the config,
    and so of the run.
    """
    answers = torch.from_numpy(tables.read_table(config.table))
    a, b = (answers >= 0).nonzero().unbind(1)
    return tasks.equations(config, f"a ∘ b by a table of {len(answers)}", a, b, answers[a, b], len(answers))
