"""Partitions, and Young's orthogonal form of the smallest groups."""

import torch

from grokscope.algebra import young


def test_partitions_of_four_are_listed():
    assert list(young.partitions(4)) == [(4,), (3, 1), (2, 2), (2, 1, 1), (1, 1, 1, 1)]
    assert [len(list(young.partitions(n))) for n in range(1, 8)] == [1, 2, 3, 5, 7, 11, 15]


def test_transpose_exchanges_rows_and_columns():
    assert young.transpose((3, 1)) == (2, 1, 1) and young.transpose((2, 2)) == (2, 2)
    assert all(young.transpose(young.transpose(shape)) == shape for shape in young.partitions(6))


def test_orthogonal_form_of_s3_is_the_known_one():
    """The transposition (0 1) is diagonal, and (1 2) has 1/2 and √3/2 (James and Kerber 1981, section 3.4)."""
    first, second = young.orthogonal_form((2, 1))
    off_diagonal = 3**0.5 / 2
    expected = torch.tensor([[-0.5, off_diagonal], [off_diagonal, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(first.diagonal().sort().values, torch.tensor([-1.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(second.abs(), expected.abs())
    torch.testing.assert_close(second.trace(), torch.tensor(0.0, dtype=torch.float64))


def test_transpositions_satisfy_the_braid_relations():
    for shape in young.partitions(5):
        matrices = young.orthogonal_form(shape)
        identity = torch.eye(len(matrices[0]), dtype=torch.float64)
        for i, matrix in enumerate(matrices):
            torch.testing.assert_close(matrix @ matrix, identity)
            for following in matrices[i + 2 :]:
                torch.testing.assert_close(matrix @ following, following @ matrix)
        for left, right in zip(matrices, matrices[1:], strict=False):
            torch.testing.assert_close(left @ right @ left, right @ left @ right)
