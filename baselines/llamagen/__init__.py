"""LlamaGen (Sun et al., 2024): a Llama that generates an image token by token, row by row.  Family `systems.llamagen`.

| id | what runs |
|---|---|
| `llamagen-<size>` | the transformer of that section, with its tokenizer |

Follows FoundationVision/LlamaGen at ce98ec4 and its sampling script sample_c2i_ddp.py: guidance at every token, no
filters, images generated at 384 x 384 and resized.  Unlike there, labels and seeds are ours: each image has its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from varient.baselines.llamagen.settings import Settings, TokenizerConfig, TransformerConfig
from varient.config import CachePolicy, ExperimentConfig, Precision
from varient.cost.parameters import llamagen_parameters
from varient.systems.ids import LlamaGenId
from varient.systems.protocol import Network

if TYPE_CHECKING:
    from varient.baselines.llamagen.sampling import LlamaGenSampler

__all__ = ["FORMS", "Settings", "networks", "resolve"]

FORMS = "llamagen-<size>"

RELEASED_SIZES = ("b", "l", "xl", "xxl", "3b")
TOKENIZER, TRANSFORMER = "llamagen-tokenizer", "llamagen"


@dataclass(frozen=True)
class LlamaGen:
    """The row `llamagen-<size>` of a table (`varient.systems.protocol.System`)."""

    config: ExperimentConfig
    settings: Settings
    weights: tuple[str, ...] = (TOKENIZER, TRANSFORMER)
    cache_policies: tuple[CachePolicy, ...] = ("static",)

    @property
    def name(self) -> str:
        """Its id."""
        return str(LlamaGenId(self.settings.size))

    @property
    def published_as(self) -> str:
        """Id at its authors' size; other sizes correspond to XXL, the one in the paper's tables."""
        return self.name if self.settings.size in RELEASED_SIZES else str(LlamaGenId("xxl"))

    @property
    def steps(self) -> str:
        """Passes through the transformer, one a token: "576"."""
        return str(self.settings.token_side(self.config.data) ** 2)

    def parameters(self) -> dict[str, int]:
        """Parameters of the transformer."""
        shape = self.settings.transformer.model
        full = llamagen_parameters(depth=shape.depth, width=shape.width, hidden=shape.hidden,
                                   vocab_size=self.settings.tokenizer.model.codebook_size,
                                   num_classes=self.config.data.num_classes)
        shared_heads = shape.num_heads - shape.kv_heads
        return {TRANSFORMER: full - shape.depth * 2 * shared_heads * shape.head_dim * shape.width}

    def protocol(self) -> dict[str, Any]:
        """Guidance, filters, and the size that images are generated at."""
        chosen = self.settings.model_dump(include={"cfg", "cfg_interval", "top_k", "top_p", "temperature"})
        return chosen | {"generated_size": self.settings.generated_size(self.config.data)}

    def load(self, run_dir: Path | None, precision: Precision) -> LlamaGenSampler:
        """The system with its networks from ``run_dir``, or with random weights, on the GPU where there is one.

        Raises:
            CheckpointError: weights that are missing or do not fit.
        """
        from varient.baselines.llamagen.build import (
            build_tokenizer,
            build_transformer,
            load_tokenizer,
            load_transformer,
        )
        from varient.baselines.llamagen.sampling import LlamaGenSampler
        from varient.baselines.llamagen.transformer import initialize
        from varient.systems.pipeline import default_device, ready

        if run_dir is None:
            with default_device(precision):
                tokenizer, model = build_tokenizer(self.settings), build_transformer(self.config, self.settings)
                initialize(model)
        else:
            tokenizer = load_tokenizer(self.settings, run_dir / f"{TOKENIZER}.safetensors")
            model = load_transformer(self.config, self.settings, run_dir / f"{TRANSFORMER}.safetensors")
        return LlamaGenSampler(ready(model, precision), ready(tokenizer), self.settings, self.config.data.image_size,
                               self.config.sampling.decoded_at_once)


def resolve(name: str, config: ExperimentConfig, settings: Settings) -> LlamaGen | None:
    """The system of that id, or None where the id is not `llamagen-...`.

    Raises:
        ValueError: a size that the experiment does not have, or settings that do not fit its images.
    """
    if LlamaGenId.parse(name) is None:
        return None
    settings.check_fits(config.data)
    system = LlamaGen(config, settings)
    if name != system.name:
        raise ValueError(f"system {name!r}: the LlamaGen of {config.name} is {system.name}")
    return system


def networks(config: ExperimentConfig, settings: Settings) -> tuple[Network, ...]:
    """Tokenizer and transformer, each trained here or imported from a released file.

    Raises:
        ValueError: settings that do not fit the experiment's images.
    """
    settings.check_fits(config.data)
    sections = ("data", "systems.llamagen.tokenizer")
    tokenizer, transformer = settings.tokenizer, settings.transformer
    for name, part in (("tokenizer", tokenizer), ("transformer", transformer)):
        if part.training:
            config.data.require_in_memory(f"systems.llamagen.{name}.training")
    return (
        Network(TOKENIZER, partial(_make_tokenizer, config, settings), _code(tokenizer), sections,
                released=tokenizer.weights, check=partial(_check_tokenizer, settings)),
        Network(TRANSFORMER, partial(_make_transformer, config, settings), _code(transformer),
                (*sections, "systems.llamagen.transformer"), needs=(TOKENIZER,) if transformer.training else (),
                released=transformer.weights, check=partial(_check_transformer, config, settings)),
    )


def _code(part: TokenizerConfig | TransformerConfig) -> tuple[str, ...]:
    return ("varient.baselines.llamagen.training" if part.training else "varient.baselines.llamagen.checkpoints",)


def _make_tokenizer(config: ExperimentConfig, settings: Settings, _run_dir: Path, output: Path) -> None:
    if settings.tokenizer.training:
        from varient.baselines.llamagen.training import train_tokenizer

        train_tokenizer(config, settings, output)
    else:
        from varient.baselines.llamagen.checkpoints import import_tokenizer

        import_tokenizer(settings, output)


def _make_transformer(config: ExperimentConfig, settings: Settings, run_dir: Path, output: Path) -> None:
    if settings.transformer.training:
        from varient.baselines.llamagen.training import train_transformer

        train_transformer(config, settings, run_dir / f"{TOKENIZER}.safetensors", output)
    else:
        from varient.baselines.llamagen.checkpoints import import_transformer

        import_transformer(config, settings, output)


def _check_tokenizer(settings: Settings) -> None:
    from varient.baselines.llamagen.checkpoints import check_tokenizer

    check_tokenizer(settings)


def _check_transformer(config: ExperimentConfig, settings: Settings) -> None:
    from varient.baselines.llamagen.checkpoints import check_transformer

    check_transformer(config, settings)
