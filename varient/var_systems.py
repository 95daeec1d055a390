"""VAR, its subnets and their ids: the family `var`.

| id | weights | plan |
|---|---|---|
| `var-d30` | base | full |
| `variant-d16`, `variant-d16-n7` | supernet trained with d = 16 | bridge zone N (the config's, or as said), then I_16 |
| `variant-d16-full` | supernet trained with d = 16 | full |
| `variant-d16-p50-s1`, `-n7`, `-full` | trained by the recipe `p50` of the config, and with seed 1 | as above |
| `variant-d16-e5`, `-n7`, `-full` | as they were after epoch 5, the end of phase 1 (or 20, of phase 2) | as above |
| `free-d16`, `free-d16-n7` | base, no further training | as `variant-d16` |
| `free-d16-r4to6` | base | I_16 at r4-r6, all layers elsewhere (Table 1) |
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from varient.config import CachePolicy, ExperimentConfig, Precision, TransformerSpec
from varient.paper import DEPTH
from varient.plan import DepthPlan
from varient.profiling.parameters import var_parameters
from varient.training.recipes import Supernet

if TYPE_CHECKING:
    from varient.pipeline import Pipeline
    from varient.systems import Network

FORMS = ("var-d<D>, variant-d<d>[-<recipe>][-s<seed>][-e<epoch>][-n<N>|-full], free-d<d>[-n<N>], "
         "free-d<d>-r<first>to<last>")
Settings = None

_ID = re.compile(r"(?P<family>var|variant|free)-d(?P<depth>\d+)(-(?P<recipe>p\d+|(?!full)[a-z]{2}[a-z0-9]*))?"
                 r"(-s(?P<seed>\d+))?(-e(?P<epoch>\d+))?(-n(?P<bridge>\d+)|-(?P<full>full)|-r(?P<first>\d+)to(?P<last>\d+))?")


@dataclass(frozen=True)
class VARSystem:
    """VAR under a plan.

    Attributes:
        name: the id it was asked by.
        network: `base` or `supernet-d<d>`.
        plan: layers per scale.
        published_as: its id at the paper's size.
        recipe: how its supernet was trained; None is the paper's way, or no supernet.
    """

    config: ExperimentConfig
    name: str
    network: str
    plan: DepthPlan
    published_as: str
    recipe: str | None = None
    cache_policies: tuple[CachePolicy, ...] = ("lean", "reference")

    @property
    def steps(self) -> str:
        """Passes through the transformer as the paper prints them: "10", or "6+4" for bridge and flexible zone."""
        full_scales = sum(len(layers) == self.plan.depth for layers in self.plan.layers_per_scale)
        rest = self.plan.num_scales - full_scales
        return f"{full_scales}+{rest}" if rest else str(full_scales)

    @property
    def weights(self) -> tuple[str, ...]:
        """Tokenizer and transformer."""
        return "tokenizer", self.network

    def parameters(self) -> dict[str, int]:
        """Those of the transformer."""
        return {self.network: count_transformer(self.config, self.config.transformer)}

    def protocol(self) -> dict[str, Any]:
        """Layers per scale and the experiment's guidance."""
        settings = self.config.sampling
        return {"layers_per_scale": self.plan.layers_per_scale, "cfg": settings.cfg, "top_k": settings.top_k,
                "top_p": settings.top_p}

    def load(self, run_dir: Path | None, precision: Precision) -> Pipeline:
        """Tokenizer, transformer and plan together."""
        from varient.pipeline import load_pipeline, random_pipeline

        if run_dir is None:
            return random_pipeline(self.config, self.plan, precision)
        tokenizer, network = (run_dir / f"{name}.safetensors" for name in self.weights)
        return load_pipeline(self.config, tokenizer, network, self.plan, precision)


def count_transformer(config: ExperimentConfig, spec: TransformerSpec) -> int:
    """Parameters of a VAR transformer of the given shape over the experiment's tokens."""
    tokenizer = config.tokenizer.model
    return var_parameters(spec, config.pyramid, num_classes=config.data.num_classes, vocab_size=tokenizer.vocab_size,
                          z_channels=tokenizer.z_channels)


def networks(config: ExperimentConfig, settings: None) -> Sequence[Network]:
    """None: tokenizer, base and supernets belong to every experiment."""
    return ()


def resolve(name: str, config: ExperimentConfig, settings: None) -> VARSystem | None:
    """The system of that id in the experiment.

    Raises:
        ValueError: an id that asks for a depth the experiment does not have.
    """
    match = _ID.fullmatch(name)
    if not match:
        return None
    depth = config.transformer.depth
    family, subnet_depth = match["family"], int(match["depth"])
    published_as = _at_paper_size(name, subnet_depth, config)
    if family != "variant" and (match["recipe"] or match["seed"] or match["epoch"]):
        raise ValueError(f"system {name!r}: only trained supernets have recipes, seeds and epochs")
    if family == "var":
        if subnet_depth != depth or match["bridge"] or match["full"] or match["first"]:
            raise ValueError(f"system {name!r}: the base network of {config.name} is var-d{depth}")
        return VARSystem(config, name, "base", config.plan(), published_as)
    if match["first"]:
        if family == "variant":
            raise ValueError(f"system {name!r}: windows of scales are for the untrained subnets (Table 1)")
        plan = config.window_plan(subnet_depth, int(match["first"]), int(match["last"]))
        return VARSystem(config, name, "base", plan, published_as)
    if family == "free" and match["full"]:
        raise ValueError(f"system {name!r}: the untrained full network is var-d{depth}")
    if family == "variant" and subnet_depth not in config.supernet.depths:
        raise ValueError(f"system {name!r}: {config.name} trains supernets for d = "
                         f"{', '.join(map(str, config.supernet.depths))}")
    recipe = config.recipe(match["recipe"])
    bridge = int(match["bridge"]) if match["bridge"] else recipe.bridge
    plan = config.plan() if match["full"] else config.plan(subnet_depth, bridge)
    network = "base"
    if family == "variant":
        network = Supernet(subnet_depth, match["recipe"], int(match["seed"] or 0)).weights(config)
    if match["epoch"]:
        kept = config.supernet.kept_epochs(subnet_depth, recipe)
        if int(match["epoch"]) not in kept:
            raise ValueError(f"system {name!r}: its training keeps the weights after epochs "
                             f"{', '.join(map(str, kept)) or 'none'}")
        network += f"-e{match['epoch']}"
    return VARSystem(config, name, network, plan, published_as, match["recipe"])


def _at_paper_size(name: str, depth: int, config: ExperimentConfig) -> str:
    """The id with the paper's depth in place of the one that stands for it here."""
    paper_depths = {config.transformer.depth: DEPTH}
    paper_depths |= {here: paper for paper, here in config.supernet.counterparts.items() if here}
    return name.replace(f"-d{depth}", f"-d{paper_depths.get(depth, depth)}", 1)
