"""CoDe, collaborative decoding: a large VAR drafts the first N scales, a small one refines the rest.

| id | drafter | refiner |
|---|---|---|
| `code-n6` | the base, fine-tuned on scales 1..N | the small VAR, distilled from the base on scales N+1..K |
| `free-code-n6` | the base | the small VAR, as they are |

Facts: CoDe's code (czg1225/CoDe at bfb204d) and paper.  The drafter is fine-tuned with cross-entropy for 5 % of VAR's
epochs, the refiner with the KL divergence to the large network for 25 %; the paper's "dynamic weighting" of that loss
is not specified and not done here.  The authors' files have the released VAR layouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from varient.config import (
    BaseTraining,
    CachePolicy,
    Count,
    ExperimentConfig,
    Positive,
    Precision,
    Rate,
    Share,
    Strict,
    TransformerSpec,
    UserFile,
)
from varient.systems.ids import CodeId
from varient.systems.protocol import Network
from varient.systems.var import count_transformer

if TYPE_CHECKING:
    from varient.baselines.code.decoding import CodeSampler

FORMS = "code-n<N>, free-code-n<N>"

class Source(Strict):
    """Source of a network: a file of the user or a training."""

    weights: UserFile | None = None
    training: BaseTraining | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Source:
        if (self.weights is None) == (self.training is None):
            raise ValueError("needs exactly one of 'weights' (a file) and 'training' (settings)")
        return self


class Pair(Strict):
    """The fine-tuned networks for one N."""

    drafter: Source
    refiner: Source


class Settings(Strict):
    """Section `systems.code`; guidance as in the authors' sample_CoDe.py."""

    refiner: TransformerSpec
    small: Source
    pairs: dict[Positive, Pair] = Field({}, description="N -> networks fine-tuned for it")
    cfg: Rate = 1.5
    top_k: Count = 600
    top_p: Share = 0.96
    temperatures: tuple[Rate, ...] = (1.1,) * 7 + (1.0,) * 3


@dataclass(frozen=True)
class CodeNetwork:
    """One of CoDe's networks and what makes it.

    Attributes:
        role: `small` is the refiner before its fine-tuning.
        drafted: N; for `small`, which learns all scales, K.
    """

    role: Literal["small", "drafter", "refiner"]
    drafted: int
    source: Source

    @property
    def name(self) -> str:
        """Stem of its weight file."""
        return "code-small" if self.role == "small" else f"code-{self.role}-n{self.drafted}"

    def spec(self, config: ExperimentConfig, settings: Settings) -> TransformerSpec:
        """Its shape."""
        return config.transformer if self.role == "drafter" else settings.refiner

    @property
    def depends(self) -> tuple[str, ...]:
        """Config sections that it depends on, without guidance and other pairs."""
        own = {"small": ("refiner", "small"), "drafter": (f"pairs.{self.drafted}.drafter",),
               "refiner": ("refiner", "small", f"pairs.{self.drafted}.refiner")}[self.role]
        return ("data", "patch_nums", "tokenizer", "transformer", "base", *(f"systems.code.{key}" for key in own))

    @property
    def needs(self) -> tuple[str, ...]:
        """Networks that its training reads; a fine-tuning starts from the last one."""
        return {"small": ("tokenizer",), "drafter": ("tokenizer", "base"),
                "refiner": ("tokenizer", "base", "code-small")}[self.role]


@dataclass(frozen=True)
class CodeSystem:
    """CoDe with N drafted scales."""

    config: ExperimentConfig
    settings: Settings
    name: str
    drafted: int
    drafter: str
    refiner: str
    cache_policies: tuple[CachePolicy, ...] = ("lean", "reference")

    @property
    def steps(self) -> str:
        """Scales of the drafter and of the refiner, as the paper prints them."""
        return f"{self.drafted}+{len(self.config.patch_nums) - self.drafted}"

    @property
    def published_as(self) -> str:
        """The same id: N counts scales, of which there are ten at any size."""
        return self.name

    @property
    def weights(self) -> tuple[str, ...]:
        """Tokenizer, drafter and refiner."""
        return "tokenizer", self.drafter, self.refiner

    def parameters(self) -> dict[str, int]:
        """Those of both transformers."""
        return {"drafter": count_transformer(self.config, self.config.transformer),
                "refiner": count_transformer(self.config, self.settings.refiner)}

    def protocol(self) -> dict[str, Any]:
        """Division of the scales and guidance."""
        guidance = self.settings.model_dump(include={"cfg", "top_k", "top_p", "temperatures"})
        return {"drafted_scales": self.drafted} | guidance

    def load(self, run_dir: Path | None, precision: Precision) -> CodeSampler:
        """Both transformers and the tokenizer."""
        from varient.baselines.code.decoding import load_sampler

        return load_sampler(self, run_dir, precision)


def resolve(name: str, config: ExperimentConfig, settings: Settings) -> CodeSystem | None:
    """The system of that id.

    Raises:
        ValueError: an N outside 1..K-1, or one that no pair was fine-tuned for.
    """
    found = CodeId.parse(name)
    if found is None:
        return None
    drafted, num_scales = found.drafted, len(config.patch_nums)
    if not 1 <= drafted < num_scales:
        raise ValueError(f"system {name!r}: the drafter takes 1..{num_scales - 1} scales")
    if found.free:
        return CodeSystem(config, settings, name, drafted, "base", "code-small")
    if drafted not in settings.pairs:
        raise ValueError(f"system {name!r}: {config.name} has fine-tuned pairs for N = "
                         f"{', '.join(map(str, settings.pairs)) or 'none'}")
    return CodeSystem(config, settings, name, drafted, f"code-drafter-n{drafted}", f"code-refiner-n{drafted}")


def networks(config: ExperimentConfig, settings: Settings) -> Sequence[Network]:
    """The small VAR, and a drafter and a refiner for each N.

    Raises:
        ValueError: temperatures that do not fit the scales.
    """
    if len(settings.temperatures) != len(config.patch_nums):
        raise ValueError(f"systems.code.temperatures: {len(settings.temperatures)} for {len(config.patch_nums)} scales")
    parts = [CodeNetwork("small", len(config.patch_nums), settings.small)]
    for drafted, pair in settings.pairs.items():
        parts += [CodeNetwork("drafter", drafted, pair.drafter), CodeNetwork("refiner", drafted, pair.refiner)]
    return [Network(part.name, partial(_make, config, settings, part), code=("varient.baselines.code.training",),
                    depends=part.depends, needs=part.needs, released=part.source.weights,
                    check=partial(_check, config, settings, part)) for part in parts]


def _make(config: ExperimentConfig, settings: Settings, part: CodeNetwork, run_dir: Path, output: Path) -> None:
    from varient.baselines.code.training import make_network

    make_network(config, settings, part, run_dir, output)


def _check(config: ExperimentConfig, settings: Settings, part: CodeNetwork) -> None:
    from varient.models.official import check_transformer

    assert part.source.weights is not None  # only called for networks with a file
    check_transformer(config, part.source.weights, part.spec(config, settings))
