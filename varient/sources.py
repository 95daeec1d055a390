"""Which source files a stage consists of: the workflow reruns a stage when its own code changes, and only then."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).parent.parent
_PACKAGES = ("varient", "baselines")


def stage_sources(*modules: str) -> list[str]:
    """Files of the named modules of ours and of all that they import of ours, as paths from the project's root.

    Read from the syntax tree, imports inside functions included, imports for type checkers left out; nothing is run.
    The package's own `__init__` (a version number) does not count, nor do modules of other packages: what is installed
    belongs to the environment.

    Raises:
        ValueError: a module of ours that does not exist.
    """
    seen: set[Path] = set()
    waiting = [_file_of(module) for module in modules if module.split(".")[0] in _PACKAGES]
    if None in waiting:
        raise ValueError(f"no such module among {', '.join(modules)}")
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            waiting.extend(_imports(path))
    seen.discard(_ROOT / "varient" / "__init__.py")
    return sorted(str(path.relative_to(_ROOT)) for path in seen)


@cache
def _imports(path: Path) -> tuple[Path, ...]:
    """Files of ours that one file imports."""
    names = []
    tree = ast.parse(path.read_text())
    for block in [node for node in ast.walk(tree) if isinstance(node, ast.If)]:
        if ast.unparse(block.test) == "TYPE_CHECKING":
            block.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(file for file in map(_file_of, names) if file)


def _file_of(module: str) -> Path | None:
    """The file of a module of `varient` or `baselines`; None for other people's and for names inside a module."""
    if module.split(".")[0] not in _PACKAGES:
        return None
    base = _ROOT.joinpath(*module.split("."))
    return next((file for file in (base.with_suffix(".py"), base / "__init__.py") if file.exists()), None)
