"""The run-time type checker of the tests: beartype, with an int where a float is asked for, as PEP 484 says."""

import ast

import jaxtyping._import_hook
from beartype import BeartypeConf, beartype

typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))


class OuterFunctions(jaxtyping._import_hook.JaxtypingTransformer):
    """Leaves functions inside functions unchecked: each call would compile their checks, half of a tiny training."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        body, node.body = node.body, []
        super().visit_FunctionDef(node)
        node.body = body
        return node


jaxtyping._import_hook.JaxtypingTransformer = OuterFunctions
