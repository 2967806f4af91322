"""What a contract says about the values of its enums: the docstring below each, which Python itself forgets."""

import ast
import inspect
import textwrap
from enum import Enum
from itertools import pairwise


def value_docs(enum: type[Enum]) -> dict[str, str]:
    """The docstrings by the value's name; none where the source is not there to be read."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(enum)))
    except (OSError, TypeError, SyntaxError):
        return {}
    found: dict[str, str] = {}
    for statement, below in pairwise(tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []):
        match statement, below:
            case ast.Assign(targets=[ast.Name(name)]), ast.Expr(ast.Constant(str(text))) if name in enum.__members__:
                found[name] = " ".join(text.split())
    return found
