"""Which source files a stage consists of: the workflow reruns a stage when its own code changes, and only then."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

_ROOT = Path(__file__).parent.parent
_PACKAGE = "varient"
_SEARCHED = {"varient.baselines": "baselines"}
"""Packages whose modules lie in another folder of the project too, as their `__path__` says."""
_VERSION = _ROOT / "varient" / "__init__.py"


class _Use(NamedTuple):
    """A file and how much of it a stage uses: all, or what runs when it is imported."""

    path: Path
    whole: bool


def stage_sources(*modules: str) -> list[str]:
    """Files of the named modules of ours and of all that they import of ours, as paths from the project's root.

    Read from the syntax tree; nothing is run.  Imports inside functions count, imports for type checkers do not.
    Importing a.b.c runs the `__init__` of a and of a.b as well: these files count too, with their imports at module
    level but not those inside their functions.  Left out: an `__init__` of nothing but a docstring, the version in
    `varient/__init__.py`, and modules of other packages, which belong to the environment.

    Raises:
        ValueError: a module of ours that does not exist.
    """
    ours = [module for module in modules if module.split(".")[0] == _PACKAGE]
    if not all(map(_file_of, ours)):
        raise ValueError(f"no such module among {', '.join(modules)}")
    seen: set[_Use] = set()
    waiting = [use for module in ours for use in _uses(module, whole=True)]
    while waiting:
        use = waiting.pop()
        if use not in seen:
            seen.add(use)
            waiting.extend(_imports(use))
    return sorted({str(path.relative_to(_ROOT)) for path, _ in seen if path != _VERSION and _has_code(path)})


def _uses(module: str, *, whole: bool) -> Iterator[_Use]:
    """The file of a module, or of the module that a name is in, and the packages on the way to it."""
    if module.split(".")[0] != _PACKAGE:
        return
    while not (path := _file_of(module)):
        module = module.rpartition(".")[0]
    yield _Use(path, whole)
    while module := module.rpartition(".")[0]:
        if package := _file_of(module):
            yield _Use(package, whole=False)


def sources_digest(*modules: str) -> str:
    """SHA-256 of the files of `stage_sources`, names and contents."""
    digest = hashlib.sha256()
    for name in stage_sources(*modules):
        digest.update(name.encode() + b"\0" + (_ROOT / name).read_bytes())
    return digest.hexdigest()


@cache
def _imports(use: _Use) -> tuple[_Use, ...]:
    """What one file imports of ours."""
    names = []
    for node in _nodes(_tree(use.path), into_functions=use.whole):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(found for name in names for found in _uses(name, whole=use.whole))


def _nodes(node: ast.AST, *, into_functions: bool) -> Iterator[ast.AST]:
    """All below a node, but for what only type checkers read and, unless asked for, the bodies of functions."""
    for child in ast.iter_child_nodes(node):
        yield child
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            child = ast.Module(child.orelse, [])
        if into_functions or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _nodes(child, into_functions=into_functions)


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def _has_code(path: Path) -> bool:
    return any(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in _tree(path).body)


def _file_of(module: str) -> Path | None:
    """The file of a module of ours; None where no module has that name."""
    bases = [_ROOT.joinpath(*module.split("."))]
    bases += [_ROOT.joinpath(folder, *module.removeprefix(f"{package}.").split("."))
              for package, folder in _SEARCHED.items() if module.startswith(f"{package}.")]
    return next((file for base in bases for file in (base.with_suffix(".py"), base / "__init__.py") if file.exists()),
                None)
