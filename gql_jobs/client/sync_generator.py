"""Generates ``sync_client.py`` from ``async_client.py``: the same names, types and promises, for code that waits.

``python -m gql_jobs.client.sync_generator`` writes it; with ``--check`` it only compares, and exits with 1 if they
differ. Each method of a generated class has the one of the source called on the loop of a background thread.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_SOURCE = Path(__file__).with_name("async_client.py")
TARGET = Path(__file__).with_name("sync_client.py")
CLASSES = ("AsyncClient", "AsyncJobHandle", "AsyncJobArtifact")
"""The classes that have a twin."""
_HEAD = '''"""The client for code that does not await: ``Client`` has what ``AsyncClient`` has, and waits for it.

Generated from ``async_client.py`` by ``python -m gql_jobs.client.sync_generator``; changes belong there.
"""

# ruff: noqa: A002, SLF001 - as in the source, whose other half this is
'''
_DESCRIPTION = """A client of one server: creates jobs, finds them, and follows them to their results.

    It waits for what is asked, and so is not for code that runs in an event loop, which has ``AsyncClient``. Any number
    of threads may use one. It opens connections when they are needed, in a thread of its own, and anew in a process
    that was forked. ``with`` closes it."""
_OF_CLIENT = """
self._loop = BackgroundLoop(
    lambda: AsyncClient(address, token, patience=patience, transport=transport), is_remade=transport is None
)
"""
_OF_OTHERS = """
def __init__(self, loop: BackgroundLoop[AsyncClient], twin: {owner}) -> None:
    self._loop = loop
    self._twin = twin

def __repr__(self) -> str:
    return f"<{{type(self).__name__}} {{self._twin!r}}>"
"""
_OF_CONTEXT = """
def __enter__(self) -> Self:
    return self

def __exit__(
    self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
) -> None:
    self.close()
"""


def sync_source(source: str) -> str:
    """Return the text of the module of the twins for that of the source."""
    tree = ast.parse(source)
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    variables = [node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node).startswith("_R =")]
    ours = ast.parse(
        "from collections.abc import Iterator\n"
        f"from gql_jobs.client.async_client import OneOrMore, {', '.join(CLASSES)}\n"
        "from gql_jobs.client.background_loop import BackgroundLoop\n"
    ).body
    body = [*imports, *ours, *variables, *(_twin_class(classes[name]) for name in CLASSES)]
    text = _HEAD + ast.unparse(ast.fix_missing_locations(ast.Module(body, [])))
    for command in (["check", "--fix-only", "--select", "F401,I"], ["format"]):
        program = [sys.executable, "-m", "ruff", *command, "--quiet", "--stdin-filename", str(TARGET), "-"]
        text = subprocess.run(program, input=text, capture_output=True, text=True, check=True).stdout  # noqa: S603
    return text


def _twin_class(node: ast.ClassDef) -> ast.ClassDef:
    doc = ast.get_docstring(node, clean=False) or ""
    if node.name == CLASSES[0]:
        doc = _DESCRIPTION + doc[doc.index("\n\n    :param") :]
    described: ast.stmt = ast.Expr(ast.Constant(doc))
    bases = [ast.parse(_twin_names(ast.unparse(base)), mode="eval").body for base in node.bases]
    members = [member for item in node.body for member in _twin_members(item, node)]
    return ast.ClassDef(_twin_names(node.name), bases, [], [described, *members], [])


def _twin_members(item: ast.stmt, owner: ast.ClassDef) -> Iterator[ast.stmt]:
    if not isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    if item.name == "__init__" and owner.name == CLASSES[0]:
        yield _with_body(item, ast.parse(_OF_CLIENT).body)
    elif item.name == "__init__":
        generic = f"{owner.name}[_R]" if owner.bases else owner.name
        yield from ast.parse(_OF_OTHERS.format(owner=generic)).body
    elif item.name == "__aenter__":
        yield from ast.parse(_OF_CONTEXT).body
    elif not item.name.startswith("_"):
        yield _twin_method(item, is_client=owner.name == CLASSES[0])


def _twin_method(item: ast.FunctionDef | ast.AsyncFunctionDef, *, is_client: bool) -> ast.stmt:
    """Return the method that has the one of the source called, as its kind and its return type have it."""
    decorators = {ast.unparse(decorator) for decorator in item.decorator_list}
    if "overload" in decorators:
        return _with_body(item, [ast.Expr(ast.Constant(...))])
    if "property" in decorators:
        return _with_body(item, ast.parse(f"return self._twin.{item.name}").body)
    if item.name == "close":
        return _with_body(item, ast.parse("self._loop.close()").body)
    returned = ast.unparse(item.returns).strip("'") if item.returns is not None else ""
    call = f"{'client' if is_client else 'self._twin._with(client)'}.{item.name}({_arguments(item.args)})"
    if not isinstance(item, ast.AsyncFunctionDef):
        value = call.replace("client", "self._loop.client", 1)
    elif returned.startswith("AsyncIterator["):
        return _with_body(item, ast.parse(f"return self._loop.iterate(lambda client: {call})").body)
    else:
        value = f"self._loop.run(lambda client: {call})"
    twin = re.match(r"(list\[)?(Async\w+)", returned)
    if twin is None:
        return _with_body(item, ast.parse(f"return {value}").body)
    made = f"{_twin_names(twin[2])}(self._loop, "
    made = f"[{made}one) for one in {value}]" if twin[1] else f"{made}{value})"
    return _with_body(item, ast.parse(f"return {made}").body)


def _arguments(given: ast.arguments) -> str:
    """Return how a method with these parameters, but ``self``, is called with them."""
    parts = [argument.arg for argument in [*given.posonlyargs, *given.args][1:]]
    parts += [f"{argument.arg}={argument.arg}" for argument in given.kwonlyargs]
    parts += [f"**{given.kwarg.arg}"] if given.kwarg is not None else []
    # What an iterable does is for the thread that has given it.
    return ", ".join("list(payloads)" if part == "payloads" else part for part in parts)


def _with_body(item: ast.FunctionDef | ast.AsyncFunctionDef, body: list[ast.stmt]) -> ast.FunctionDef:
    """Return a function with the name, the decorators, the types and the description of another one."""
    header = ast.FunctionDef(item.name, item.args, [ast.Pass()], item.decorator_list, item.returns)
    (twin,) = ast.parse(_twin_names(ast.unparse(ast.fix_missing_locations(header)))).body
    assert isinstance(twin, ast.FunctionDef)
    doc = ast.get_docstring(item, clean=False)
    described: list[ast.stmt] = [ast.Expr(ast.Constant(doc))] if doc is not None else []
    twin.body = [*described, *body]
    return twin


def _twin_names(text: str) -> str:
    """Return types and names as the twins have them."""
    text = re.sub(r"\bAsyncIterator\b", "Iterator", text)
    return re.sub(rf"\b({'|'.join(CLASSES)})\b", lambda match: match[1].removeprefix("Async"), text)


def generate() -> int:
    """Write the module, or with ``--check`` compare it; return the exit code."""
    made = sync_source(_SOURCE.read_text())
    if sys.argv[1:] == ["--check"]:
        return int(not TARGET.exists() or TARGET.read_text() != made)
    TARGET.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(generate())
