"""The source files that a stage of the workflow depends on; the stage is rerun if one of them changes."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

_ROOT = Path(__file__).parent.parent
_PACKAGE = "varient"
_SEARCHED = {"varient.baselines": "baselines"}
"""Packages that also contain the modules of another folder of the project, through their `__path__`."""
_VERSION = _ROOT / "varient" / "__init__.py"


class _Use(NamedTuple):
    """A file, and whether a stage depends on all its imports (``whole``) or only on those at module level."""

    path: Path
    whole: bool


def stage_sources(*modules: str) -> list[str]:
    """Files of the given `varient` modules and of all `varient` modules that they import, relative to the project root.

    The syntax trees are analysed; no code is run.  Imports inside functions count, imports under TYPE_CHECKING do not.
    Importing a.b.c also runs the `__init__` of a and of a.b: these files are included, but of their imports only those
    at module level.  Not included: `__init__` files that contain only a docstring, the version in
    `varient/__init__.py`, and modules of other packages, which belong to the environment.

    Raises:
        ValueError: a `varient` module does not exist.
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
    """The file of a module (or of the module that defines a name), and the `__init__` files of its parent packages."""
    if module.split(".")[0] != _PACKAGE:
        return
    while not (path := _file_of(module)):
        module = module.rpartition(".")[0]
    yield _Use(path, whole)
    while module := module.rpartition(".")[0]:
        if package := _file_of(module):
            yield _Use(package, whole=False)


def sources_digest(*modules: str) -> str:
    """SHA-256 over names and contents of the files of `stage_sources`."""
    digest = hashlib.sha256()
    for name in stage_sources(*modules):
        digest.update(name.encode() + b"\0" + (_ROOT / name).read_bytes())
    return digest.hexdigest()


@cache
def _imports(use: _Use) -> tuple[_Use, ...]:
    """The `varient` modules that one file imports."""
    names = []
    for statement in _statements(_tree(use.path).body, into_functions=use.whole):
        if isinstance(statement, ast.Import):
            names += [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom) and statement.level == 0:
            names += [f"{statement.module}.{alias.name}" for alias in statement.names]
    return tuple(found for name in names for found in _uses(name, whole=use.whole))


def _statements(block: Iterable[ast.stmt], *, into_functions: bool) -> Iterator[ast.stmt]:
    """All statements of a block and of the blocks in it, without those under TYPE_CHECKING and, unless
    ``into_functions``, those of functions."""
    for statement in block:
        yield statement
        if not into_functions and isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        blocks = _blocks(statement)
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            del blocks[0]
        for inner in blocks:
            yield from _statements(inner, into_functions=into_functions)


def _blocks(statement: ast.stmt) -> list[list[ast.stmt]]:
    """The blocks of a compound statement, its first one first."""
    parts = [statement, *getattr(statement, "handlers", ()), *getattr(statement, "cases", ())]
    return [block for name in ("body", "orelse", "finalbody") for part in parts if (block := getattr(part, name, []))]


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def _has_code(path: Path) -> bool:
    return any(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in _tree(path).body)


def _file_of(module: str) -> Path | None:
    """The file of a `varient` module; None if there is no module of that name."""
    bases = [_ROOT.joinpath(*module.split("."))]
    bases += [_ROOT.joinpath(folder, *module.removeprefix(f"{package}.").split("."))
              for package, folder in _SEARCHED.items() if module.startswith(f"{package}.")]
    return next((file for base in bases for file in (base.with_suffix(".py"), base / "__init__.py") if file.exists()),
                None)
