"""Types of numbers, paths and names in settings, and the base model of all sections."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)


def _number(value: Any) -> Any:
    """Refuse booleans, which Python would accept as 0 and 1."""
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
BatchSize = Annotated[Positive, Field(le=2 ** 20)]
"""Images per batch; limited, because lists of this length are created."""
Depth = Annotated[Positive, Field(le=1000)]
"""Number of layers; limited, because lists of this length are created."""
Epochs = Annotated[Count, Field(le=100_000)]
Decay = Annotated[Real, Field(ge=0, lt=1)]
Id = Annotated[str, Field(max_length=100)]
Precision = Literal["fp32", "fp16", "bf16"]
CachePolicy = Literal["lean", "reference", "static", "none"]
"""Policy of a system's KV cache; VAR-like systems support the first two (`varient.models.kv_cache`)."""


def _writable_in_a_line(value: Any) -> Any:
    if value == "":
        raise ValueError("the path is empty")
    if len(str(value)) > 4096:
        raise ValueError(f"the path has {len(str(value)):,} characters; a file system takes 4096")
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in str(value)):
        raise ValueError("a path must not contain line breaks or other control characters")
    return value


def _no_placeholder(path: Path) -> Path:
    if found := _PLACEHOLDER.search(str(path)):
        raise ValueError(f"the workflow would read {found[0]} in this path as a placeholder: rename the file, or use a "
                         "link to it")
    return path


_PLACEHOLDER = re.compile(r"\{\s*[.\w]+\s*(,([^{}]|\{\d+(,\d+)?\})*)?\}|<[a-z][a-z0-9_]*>")
"""A wildcard or path variable of Snakemake, which offers no way to escape them."""

UserPath = Annotated[Path, BeforeValidator(_writable_in_a_line)]
"""Path of a user's file or folder."""
UserFile = Annotated[UserPath, AfterValidator(_no_placeholder)]
"""Path of a user's file or folder that is an input of a rule of the workflow."""
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Strict(BaseModel):
    """Base of all config sections: frozen, unknown keys, non-finite numbers and texts beyond any use are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=1000)


class Extended(Strict):
    """A section that got settings after results had been made from it.

    Those in `LATER` are not written where they have their defaults, so that digests of configs without them, and with
    them the results, stay valid.
    """

    LATER: ClassVar[frozenset[str]]

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        kept = {name for name in fields if name not in self.LATER or getattr(self, name) != fields[name].default}
        return {name: value for name, value in serialize(self).items() if name in kept}
