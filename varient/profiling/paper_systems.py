"""The systems of the paper's Table 2 at their own size, and their relatives: released networks at 256 x 256.

| id | what runs |
|---|---|
| `var-d16`, `var-d20`, `var-d24`, `var-d30` | the released VAR, all layers at all scales |
| `variant-d16`, `variant-d16-n7`, `variant-d16-full` | VAR-d30 with N bridge scales (6 unless said), then I_16 |
| `free-d16`, `free-d16-n7` | as `variant-d16`, without its training: the same cost |
| `code-n6` | CoDe: VAR-d30 drafts N scales; VAR-d16 takes in the tokens of N + 1 scales at once and refines the rest |
| `dit-xl2`, `llamagen-xxl` | parameters, steps and cache alone |
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from varient.config import TokenizerSpec, TransformerSpec
from varient.plan import DepthPlan
from varient.profiling.parameters import dit_parameters, llamagen_parameters, var_parameters, vqvae_parameters
from varient.profiling.work import Precision, Stage, VARShape
from varient.pyramid import VAR_256

DEPTH = 30
"""D of the network that the paper makes shallower."""
BRIDGE = 6
"""N of the paper's Table 2."""
REFINER_DEPTH = 16
"""Of CoDe's refiner (CoDe at bfb204d, sample_CoDe.py)."""
RELEASED_DEPTHS = (16, 20, 24, 30)

_VAR = re.compile(r"var-d(?P<depth>\d+)")
_VARIANT = re.compile(r"(?P<family>variant|free)-d(?P<depth>\d+)(-n(?P<bridge>\d+)|-(?P<full>full))?")
_CODE = re.compile(r"code-n(?P<drafted>\d+)")

LLAMAGEN_CACHE = 2 * 48 * 1536 * 584
"""Cached channels of one row of LlamaGen-XXL: keys and values of 48 layers of width 1536, for one class and 576 image
tokens, rounded up to a multiple of 8 (LlamaGen at ce98ec4, `setup_caches`)."""


@dataclass(frozen=True)
class PaperSystem:
    """A system at the size of the paper.

    Attributes:
        name: its id.
        steps: passes through the transformer as the paper prints them.
        transformer_parameters: of each transformer.
        tokenizer_parameters: of the image tokenizer.
        stages: what its VAR transformers do, in order; empty for the baselines of another kind.
        cached_channels: for those, key and value channels that one row keeps.
    """

    name: str
    steps: str
    transformer_parameters: tuple[int, ...]
    tokenizer_parameters: int
    stages: tuple[Stage, ...] = ()
    cached_channels: int = 0

    def parameter_bytes(self, precision: Precision) -> int:
        """Bytes of all stored parameters; the tokenizer's stay float32."""
        return sum(self.transformer_parameters) * precision.weight_bytes + self.tokenizer_parameters * 4


def released_shape(depth: int) -> VARShape:
    """VAR-d<depth>: width 64 d, d heads (VAR at 78b9539)."""
    return VARShape(TransformerSpec.released(depth))


def paper_system(name: str) -> PaperSystem:
    """The system of that id.

    Raises:
        ValueError: an id that is not of the module's table, or a depth or bridge that does not exist.
    """
    if match := _VAR.fullmatch(name):
        depth = int(match["depth"])
        if depth not in RELEASED_DEPTHS:
            known = ", ".join(map(str, RELEASED_DEPTHS))
            raise ValueError(f"system {name!r}: released depths at 256 x 256 are {known}")
        return _var_system(name, Stage(released_shape(depth), DepthPlan.full(depth, VAR_256.num_scales)))
    if match := _VARIANT.fullmatch(name):
        bridge = VAR_256.num_scales if match["full"] else int(match["bridge"] or BRIDGE)
        plan = DepthPlan.bridge(DEPTH, int(match["depth"]), bridge, VAR_256.num_scales)
        if match["family"] == "variant" or not match["full"]:
            return _var_system(name, Stage(released_shape(DEPTH), plan))
    if match := _CODE.fullmatch(name):
        return _code_system(name, int(match["drafted"]))
    if name == "dit-xl2":
        # Stable Diffusion's autoencoder; steps as in Table 2 (DiT's own protocol takes 250).
        return PaperSystem(name, "50", (dit_parameters(),), 83_653_863)
    if name == "llamagen-xxl":
        # vq_ds16_c2i.pt; Table 2 prints 384, which is the image side: 24 x 24 tokens are decoded.
        return PaperSystem(name, "576", (llamagen_parameters(),), 71_883_403, cached_channels=LLAMAGEN_CACHE)
    raise ValueError(f"system {name!r} is unknown; known forms: var-d<D>, variant-d<d>, variant-d<d>-n<N>, "
                     f"variant-d<d>-full, free-d<d>, free-d<d>-n<N>, code-n<N>, dit-xl2, llamagen-xxl")


def _var_system(name: str, *stages: Stage) -> PaperSystem:
    networks = [var_parameters(stage.shape.spec, VAR_256, num_classes=stage.shape.num_classes,
                               vocab_size=stage.shape.vocab_size, z_channels=stage.shape.z_channels)
                for stage in stages]
    full_scales = sum(len(layers) == stages[0].plan.depth for layers in stages[0].plan.layers_per_scale)
    rest = VAR_256.num_scales - full_scales
    return PaperSystem(name, f"{full_scales}+{rest}" if rest else str(full_scales), tuple(networks),
                       vqvae_parameters(TokenizerSpec(), VAR_256.num_scales), stages)


def _code_system(name: str, drafted: int) -> PaperSystem:
    """CoDe: the drafter's cache is freed before the refiner starts."""
    if not 1 <= drafted < VAR_256.num_scales:
        raise ValueError(f"system {name!r}: the drafter takes 1..{VAR_256.num_scales - 1} scales")
    drafter = Stage(released_shape(DEPTH), DepthPlan.full(DEPTH, drafted))
    refiner = Stage(released_shape(REFINER_DEPTH), DepthPlan.full(REFINER_DEPTH, VAR_256.num_scales), drafted + 1)
    return _var_system(name, drafter, refiner)
