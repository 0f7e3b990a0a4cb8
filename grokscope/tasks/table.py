"""A binary operation that the user defines by a table of its answers."""

import torch

from grokscope import tasks
from grokscope.algebra import tables
from grokscope.config import TaskConfig
from grokscope.tasks import Task


def table(config: TaskConfig) -> Task:
    """Return the operation of the config's table, with one equation per entry that is a number.

    In Python, ``TaskConfig(name="table", table=grokscope.algebra.tabulate(lambda a, b: a ^ b, 32))`` tabulates any
    function. On the command line and in TOML, ``@FILE`` reads the table from a text file. The run stores the table in
    its config.
    """
    answers = torch.from_numpy(tables.read_table(config.table))
    a, b = (answers >= 0).nonzero().unbind(1)
    return tasks.equations(config, f"a ∘ b by a table of {len(answers)}", a, b, answers[a, b], len(answers))
