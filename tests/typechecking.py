"""The run-time type checker of the tests: beartype, with an int where a float is asked for, as PEP 484 says."""

import ast
import functools
import inspect
import itertools
from collections.abc import Callable
from typing import Any

import jaxtyping
import jaxtyping._import_hook
from beartype import BeartypeConf, beartype

typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))

N_CHECKED, CHECK_EVERY = 100, 20
SPARING = ast.parse("__import__('typechecking').sparing", mode="eval").body


def sparing(checked: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that checks its first calls, and then every twentieth: a step of training makes dozens."""
    function, numbers = inspect.unwrap(checked), itertools.count()

    @functools.wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        number = next(numbers)
        is_checked = number < N_CHECKED or number % CHECK_EVERY == 0
        return (checked if is_checked else function)(*arguments, **keywords)

    return call


class ArrayFunctions(jaxtyping._import_hook.JaxtypingTransformer):
    """Checks the outer functions that take or return arrays, whose shapes and kinds pyright cannot check.

    Checking every function took two fifths of the tests' time. In a function inside a function, the checks would be
    compiled at each call.
    """

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        self.generic_visit(node)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        if names_an_array(node):
            body, node.body = node.body, []
            super().visit_FunctionDef(node)
            node.body = body
            node.decorator_list.insert(-1, SPARING)
        return node


def names_an_array(function: ast.FunctionDef) -> bool:
    """Whether an annotation of the function's signature has the form `Float[Tensor, "p d_model"]`."""
    arguments = function.args
    annotations = [each.annotation for each in arguments.posonlyargs + arguments.args + arguments.kwonlyargs]
    return any(
        isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and is_array_type(node.value.id)
        for annotation in [*annotations, function.returns]
        if annotation
        for node in ast.walk(annotation)
    )


def is_array_type(name: str) -> bool:
    kind = getattr(jaxtyping, name, None)
    return isinstance(kind, type) and issubclass(kind, jaxtyping.AbstractDtype)


jaxtyping._import_hook.JaxtypingTransformer = ArrayFunctions
