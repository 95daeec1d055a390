"""Kinds of numbers, paths and names that settings have, and the model that all sections are."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


def _number(value: Any) -> Any:
    """Python takes true for 1; in a config it is a slip."""
    if isinstance(value, bool):
        raise ValueError(f"expected a number, got {json.dumps(value)}")
    return value


Whole = Annotated[int, BeforeValidator(_number), Field(gt=-2 ** 31, lt=2 ** 31)]
Real = Annotated[float, BeforeValidator(_number), Field(ge=-1e15, le=1e15)]
Share = Annotated[Real, Field(ge=0, le=1)]
Positive = Annotated[Whole, Field(ge=1)]
Count = Annotated[Whole, Field(ge=0)]
Rate = Annotated[Real, Field(gt=0)]
Weight = Annotated[Real, Field(ge=0)]
Batch = Annotated[Positive, Field(le=2 ** 20)]
"""Images at once, which are listed."""
Depth = Annotated[Positive, Field(le=1000)]
"""Layers, which are listed for each scale."""
Epochs = Annotated[Count, Field(le=100_000)]
Decay = Annotated[Real, Field(ge=0, lt=1)]
Id = Annotated[str, Field(max_length=100)]
Precision = Literal["fp32", "fp16", "bf16"]
CachePolicy = Literal["lean", "reference", "static", "none"]
"""What a system's KV cache does; VAR-like systems know the first two (`varient.models.kv_cache`)."""


def _writable_in_a_line(value: Any) -> Any:
    if value == "":
        raise ValueError("an empty path names nothing")
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in str(value)):
        raise ValueError("a path may hold no line break and no other control character")
    return value


def _no_placeholder(path: Path) -> Path:
    if found := _PLACEHOLDER.search(str(path)):
        raise ValueError(f"the workflow would read {found[0]} in the path of a file as a placeholder: name the file "
                         "otherwise, or give a link to it")
    return path


_PLACEHOLDER = re.compile(r"\{\s*[.\w]+\s*(,([^{}]|\{\d+(,\d+)?\})*)?\}|<[a-z][a-z0-9_]*>")
"""A wildcard or path variable of Snakemake's, which has no way to write either for itself."""

UserPath = Annotated[Path, BeforeValidator(_writable_in_a_line)]
"""Where something of the user's lies."""
UserFile = Annotated[UserPath, AfterValidator(_no_placeholder)]
"""A file of the user's, or a folder of such, that rules of the workflow have as input."""
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Strict(BaseModel):
    """Knows its keys, and no number that is none or infinite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
