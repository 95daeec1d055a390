"""VAR and its subnets as a family of systems; `varient.systems.ids` defines their ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from varient.config import CachePolicy, ExperimentConfig, Precision, TransformerSpec
from varient.cost.parameters import var_parameters
from varient.paper import DEPTH
from varient.plan import DepthPlan, check_guidance
from varient.systems.ids import VarId, forms
from varient.systems.names import BaseId
from varient.systems.protocol import Network
from varient.training.recipes import Supernet

if TYPE_CHECKING:
    from varient.systems.pipeline import Pipeline

KEY_CHANGE = "key-change"
"""Name of the calibration of windows that differ by layer (`varient.systems.key_change`)."""
KINDS_OF_HEADS = "head-kinds"
"""Name of the calibration of budgets by head (`varient.systems.head_kinds`)."""

FORMS = forms()
Settings = None


@dataclass(frozen=True)
class VARSystem:
    """VAR with a depth plan.

    Attributes:
        config: the experiment, with the guidance and the filters of this system.
        name: its id.
        network: name of its weights, such as `base` or `supernet-d<d>`.
        plan: layers per scale, and what they see of earlier scales.
        published_as: its id at the paper's size.
    """

    config: ExperimentConfig
    name: str
    network: str
    plan: DepthPlan
    published_as: str

    @property
    def cache_policies(self) -> tuple[CachePolicy, ...]:
        """The reference cache keeps all scales as computed."""
        return ("lean", "reference") if self.plan.kv.is_plain else ("lean",)

    @property
    def steps(self) -> str:
        """Number of passes through the transformer, as `DepthPlan.steps`."""
        return self.plan.steps

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of the weights of tokenizer and transformer, and of a calibration."""
        return ("tokenizer", self.network, *filter(None, (self.calibration,)))

    @property
    def calibration(self) -> str | None:
        """What decides how the cache works in a layer; `plan` has an assumption in its place, `plan_in` the result."""
        kv = self.plan.kv
        if kv.window and kv.window.widest is not None:
            return KEY_CHANGE
        return KINDS_OF_HEADS if kv.budgets else None

    def plan_in(self, run_dir: Path) -> DepthPlan:
        """The plan for the weights of a run.

        Raises:
            CheckpointError: a calibration that is missing, or of other weights.
        """
        from varient.systems.head_kinds import contextual_heads
        from varient.systems.key_change import wide_layers

        if self.calibration is None:
            return self.plan
        kv, path = self.plan.kv, run_dir / f"{self.calibration}.safetensors"
        if kv.budgets:
            return replace(self.plan, kv=kv.with_contextual_heads(contextual_heads(self.config, run_dir, path)))
        return replace(self.plan, kv=kv.with_wide_layers(wide_layers(self.config, run_dir, path)))

    def parameters(self) -> dict[str, int]:
        """Number of parameters of the transformer."""
        return {self.network: count_transformer(self.config, self.config.transformer)}

    def protocol(self) -> dict[str, Any]:
        """Layers per scale, guidance and filters; the cache's scheme where it is not plain."""
        settings, scheme = self.config.sampling, self.plan.kv
        found = {"layers_per_scale": self.plan.layers_per_scale, "cfg": settings.cfg, "top_k": settings.top_k,
                 "top_p": settings.top_p}
        if scheme.is_plain:
            return found
        said = asdict(scheme)
        if not scheme.changes_guidance:
            del said["shared_map"], said["last_guided"]
        # Wide layers and contextual heads are those of the calibration, which is among the weights.
        if scheme.window:
            del said["window"]["wide_layers"]
            if scheme.window.widest is None:
                del said["window"]["widest"]
        if scheme.budgets:
            del said["budgets"]["contextual"]
        else:
            del said["budgets"]
        return found | {"kv": said}

    def load(self, run_dir: Path | None, precision: Precision) -> Pipeline:
        """Load tokenizer and transformer."""
        from varient.systems.pipeline import load_pipeline, random_pipeline

        if run_dir is None:
            return random_pipeline(self.config, self.plan, precision)
        tokenizer, network = (run_dir / f"{name}.safetensors" for name in self.weights[:2])
        return load_pipeline(self.config, tokenizer, network, self.plan_in(run_dir), precision)


def count_transformer(config: ExperimentConfig, spec: TransformerSpec) -> int:
    """Number of parameters of a VAR transformer of the given shape over the experiment's tokens."""
    tokenizer = config.tokenizer.model
    return var_parameters(spec, config.pyramid, num_classes=config.data.num_classes, vocab_size=tokenizer.vocab_size,
                          z_channels=tokenizer.z_channels)


def networks(config: ExperimentConfig, settings: None) -> Sequence[Network]:
    """The two calibrations; tokenizer, base and supernets belong to every experiment."""
    settings_read = ("sampling.cfg", "sampling.top_k", "sampling.top_p")
    return tuple(Network(name, partial(measure, config), (module,), settings_read, needs=("tokenizer", str(BaseId())))
                 for name, measure, module in ((KEY_CHANGE, _measure_key_change, "varient.systems.key_change"),
                                               (KINDS_OF_HEADS, _measure_head_kinds, "varient.systems.head_kinds")))


def _measure_key_change(config: ExperimentConfig, run_dir: Path, output: Path) -> None:
    from varient.systems.key_change import measure_key_change

    measure_key_change(config, run_dir, output)


def _measure_head_kinds(config: ExperimentConfig, run_dir: Path, output: Path) -> None:
    from varient.systems.head_kinds import measure_head_kinds

    measure_head_kinds(config, run_dir, output)


def resolve(name: str, config: ExperimentConfig, settings: None) -> VARSystem | None:
    """The system with this id in the experiment.

    Raises:
        ValueError: the experiment has no such depth, recipe, epoch, bridge, window or guided scales, or no guidance.
    """
    if (found := VarId.parse(name)) is None:
        return None
    depth = config.transformer.depth
    if found.kind == "var" and found.depth != depth:
        raise ValueError(f"system {name!r}: the base network of {config.name} is {VarId('var', depth)}")
    if found.of_supernet and found.depth not in config.supernet.depths:
        raise ValueError(f"system {name!r}: {config.name} trains supernets for d = "
                         f"{', '.join(map(str, config.supernet.depths))}")
    if found.base and config.base.training is None:
        raise ValueError(f"system {name!r}: {config.name} trains no base network, so it has no other than "
                         f"{replace(found, base=0)}'s")
    recipe = config.recipe(found.recipe)
    bridge = config.supernet.bridge if recipe.bridge is None else recipe.bridge
    try:
        plan = found.plan(depth, len(config.patch_nums), bridge, config.subnet_layers, config.supernet.depths)
        heads = config.transformer.num_heads
        plan.kv.check_heads(heads, config.transformer.embed_dim // heads)
        check_guidance(plan, config.sampling.cfg)
    except ValueError as error:
        raise ValueError(f"system {name!r}: {error}") from None
    supernet = Supernet(found.depth, found.recipe, found.seed, found.base)
    network = supernet.weights(config, _epoch(found, config)) if found.of_supernet else supernet.starts_from
    if found.plain:
        config = config.model_copy(update={"sampling": config.sampling.plain()})
    return VARSystem(config, name, network, plan, str(replace(found, depth=_paper_depth(found.depth, config))))


def _epoch(found: VarId, config: ExperimentConfig) -> int | None:
    """Epoch after which the weights are taken; None: the last.

    Raises:
        ValueError: the training does not keep the weights of this epoch.
    """
    settings, recipe = config.supernet, config.recipe(found.recipe)
    if found.phase is None and found.epoch is None:
        return None
    epoch = settings.end_of_phase(found.phase, found.depth, recipe) if found.phase else found.epoch
    kept = settings.kept_epochs(found.depth, recipe)
    if epoch not in kept:
        raise ValueError(f"system {str(found)!r}: its training keeps the weights after epochs "
                         f"{', '.join(map(str, kept)) or 'none'}")
    return epoch


def _paper_depth(depth: int, config: ExperimentConfig) -> int:
    """The paper's depth that corresponds to a depth of this experiment."""
    paper_depths = {config.transformer.depth: DEPTH}
    paper_depths |= {here: paper for paper, here in config.supernet.counterparts.items() if here}
    return paper_depths.get(depth, depth)
