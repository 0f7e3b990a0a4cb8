"""The answers of a task by operands."""

from grokscope.tasks import Task


def answer_table(task: Task) -> dict[tuple[int, int], int]:
    """Return each equation's answer by its operands, after a check that no pair of operands repeats."""
    equations = list(zip(map(tuple, task.operands.tolist()), task.labels.tolist(), strict=True))
    assert len(dict(equations)) == len(equations)
    return dict(equations)
