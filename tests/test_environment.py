"""The environment of a process: differences in words, and settings of the process."""

import ctypes

import pytest
import torch

from grokscope import environment


@pytest.mark.parametrize(("largest", "expected"), [(2**25, 2**25), (2**31 - 1, 2**31 - 1)])
def test_keep_memory_adapts_to_the_limit_of_glibc(largest: int, expected: int, monkeypatch: pytest.MonkeyPatch):
    thresholds = {}

    class Libc:
        @staticmethod
        def mallopt(parameter: int, value: int) -> int:
            if parameter == -3 and value > largest:
                return 0
            thresholds[parameter] = value
            return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Libc)
    environment.keep_memory.__wrapped__()
    assert thresholds == {-1: 2**31 - 1, -3: expected}


def test_drift_names_each_difference_and_its_remedy():
    then = {"torch": "2.4.0", "threads": "4", "device": "cpu"}
    now = {"torch": "2.5.1", "threads": "2", "device": "cpu", "cuda": "12.4"}
    assert environment.drift(then, then) == []
    assert environment.drift(then, now) == [
        "cuda was not recorded, is 12.4",
        "threads was 4, is 2 (OMP_NUM_THREADS=4 restores it)",
        "torch was 2.4.0, is 2.5.1",
    ]


def test_matrix_products_restores_the_precision():
    before = torch.get_float32_matmul_precision()
    with environment.matrix_products("bfloat16"):
        assert torch.get_float32_matmul_precision() == "medium"
        assert environment.describe("cpu")["float32 matrix products"] == "medium"
    assert torch.get_float32_matmul_precision() == before
