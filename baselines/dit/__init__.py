"""DiT, the diffusion transformer of the comparison (arXiv 2212.09748), as a family of systems.

| id | what |
|---|---|
| `dit-xl2` | DiT of the size that the settings name, 50 DDPM steps (or `steps`) |
| `dit-xl2-250` | the same with 250, the protocol of DiT's authors |

The tables of CoDe and VARiant print DiT-XL/2 at 50 steps without the kind of sampler; DDPM with 50 evenly respaced
steps, the authors' own sampler with fewer steps, is our reading.  Facts: facebookresearch/DiT at ed81ce2; network and
image decoder are those of diffusers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from varient.baselines.dit.settings import RELEASED_SIZES, TABLE_STEPS, VAE_FILES, Settings, latent_side
from varient.config import CachePolicy, ExperimentConfig, Precision
from varient.cost.parameters import dit_parameters
from varient.systems.ids import DiTId
from varient.systems.protocol import Network

if TYPE_CHECKING:
    from varient.baselines.dit.sampling import DiTSampler

FORMS = "dit-<size>, dit-<size>-<steps>"

# Config sections that the weights depend on: changes of guidance and steps do not require a new training.
_SECTIONS = ("data", "systems.dit.model", "systems.dit.space")


@dataclass(frozen=True)
class DiTSystem:
    """A row of DiT; see `varient.systems.protocol.System`."""

    name: str
    num_steps: int
    published_as: str
    config: ExperimentConfig
    settings: Settings
    weights: tuple[str, ...] = ("dit",)
    cache_policies: tuple[CachePolicy, ...] = ("none",)

    @property
    def files(self) -> tuple[Path, ...]:
        """Those of Stable Diffusion's decoder, where there is one."""
        return tuple(self.settings.vae / name for name in VAE_FILES) if self.settings.vae else ()

    @property
    def steps(self) -> str:
        return str(self.num_steps)

    def parameters(self) -> dict[str, int]:
        shape, side = self.settings.model, latent_side(self.config, self.settings)
        return {"dit": dit_parameters(
            depth=shape.depth, width=shape.hidden_size, num_tokens=(side // shape.patch_size) ** 2,
            patch_channels=self.settings.channels * shape.patch_size ** 2, num_classes=self.config.data.num_classes)}

    def protocol(self) -> dict[str, Any]:
        settings = self.settings
        return {"sampler": "ddpm", "steps": self.num_steps, "cfg": settings.cfg,
                "guided_channels": settings.guided, "space": settings.space}

    def load(self, run_dir: Path | None, precision: Precision) -> DiTSampler:
        from varient.baselines.dit.sampling import load_sampler
        weights = run_dir / "dit.safetensors" if run_dir else None
        return load_sampler(self.config, self.settings, self.num_steps, weights, precision)


def resolve(name: str, config: ExperimentConfig, settings: Settings) -> DiTSystem | None:
    """See `varient.systems.protocol.Family`.

    Raises:
        ValueError: another size than the experiment's, or steps outside 2..1000.
    """
    found = DiTId.parse(name)
    if found is None:
        return None
    if found.size != settings.size:
        raise ValueError(f"system {name!r}: the DiT of {config.name} is {DiTId(settings.size)}")
    steps = found.steps or settings.steps
    if not 2 <= steps <= 1000:
        raise ValueError(f"system {name!r}: DiT takes 2..1000 steps")
    latent_side(config, settings)
    # The tables' row is the id without a number of steps, for any number in the experiment's settings; a size that the
    # authors do not have corresponds to the size in the tables.
    size = settings.size if settings.size in RELEASED_SIZES else "xl2"
    in_table = found.steps is None or steps == TABLE_STEPS
    return DiTSystem(name, steps, str(DiTId(size, None if in_table else steps)), config, settings)


def networks(config: ExperimentConfig, settings: Settings) -> Sequence[Network]:
    """See `varient.systems.protocol.Family`: one network, imported or trained.

    Raises:
        ValueError: one to be trained on images that are not in memory.
    """
    if settings.weights:
        return [Network("dit", partial(_import, config, settings), ("varient.baselines.dit.released",), _SECTIONS,
                        released=settings.weights, check=partial(_check, config, settings))]
    config.data.require_in_memory("systems.dit.training")
    return [Network("dit", partial(_train, config, settings), ("varient.baselines.dit.training",),
                    (*_SECTIONS, "systems.dit.training"))]


def _import(config: ExperimentConfig, settings: Settings, run_dir: Path, output: Path) -> None:
    from varient.baselines.dit.released import import_network
    import_network(config, settings, output)


def _check(config: ExperimentConfig, settings: Settings) -> None:
    from varient.baselines.dit.released import check_network
    check_network(config, settings)


def _train(config: ExperimentConfig, settings: Settings, run_dir: Path, output: Path) -> None:
    from varient.baselines.dit.training import train
    train(config, settings, output)
