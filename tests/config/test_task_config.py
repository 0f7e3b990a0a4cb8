"""TaskConfigs: the modulus, the group and the table."""

import numpy as np
import pytest
from support.configs import construct

from grokscope.config.task_config import is_prime


@pytest.mark.parametrize("name", ["table", "addition", "tabel"])
def test_table_that_is_not_text_is_a_fault_in_any_task(name: str):
    for table in (3, None, ["0 1", "1 0"], np.zeros((2, 2))):
        faults = construct({"task.name": name, "task.table": table}).faults()
        (fault,) = [fault for fault in faults if fault.startswith("task.table: ")]
        assert "allowed: rows of numbers" in fault


@pytest.mark.parametrize("group", ["S5", "A6", "D1001", "C2", "C3xC5"])
def test_group_is_checked_in_any_task(group: str):
    for name in ("addition", "composition"):
        assert construct({"task.group": group, "task.name": name}).faults() == []
    for wrong in (f"{group}x", group.lower(), f" {group}"):
        (fault,) = construct({"task.group": wrong}).faults()
        assert fault.startswith(f"task.group: {wrong!r}; allowed: ")


def test_primes_match_a_sieve():
    sieve = np.ones(2100, bool)
    sieve[:2] = False
    for n in range(2, 46):
        sieve[2 * n :: n] = False
    assert [n for n in range(-3, 2100) if is_prime(n)] == np.flatnonzero(sieve).tolist()
