"""The systems of the paper's Table 2 at the paper's size, and other released networks at 256 x 256.

Their ids are those of `varient.systems.ids`, with the paper's N = 6 by default: `var-d16`, `var-d20`, `var-d24`,
`var-d30`, `variant-d16`, `code-n6`, `dit-xl2` (50 steps), `dit-xl2-250`, `llamagen-xxl`; `var-d30-w1` has a window,
`variant-d8-kv8` packed entries, `var-d30-gmap` and `var-d30-g6` other guidance.  Cost does not depend on the training:
`free-d16` costs what `variant-d16` does, and `free-code-n6` what `code-n6` does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from varient.config import CachePolicy, TokenizerSpec, TransformerSpec
from varient.cost.baseline_work import DiTPasses, DiTShape, LlamaGenPasses, LlamaGenShape
from varient.cost.parameters import dit_parameters, llamagen_parameters, var_parameters, vqvae_parameters
from varient.cost.quantities import NumberFormats
from varient.cost.work import NetworkPasses, VARPasses, VARShape
from varient.paper import PAPER_DEPTHS
from varient.plan import DepthPlan
from varient.pyramid import VAR_256
from varient.systems.ids import CodeId, DiTId, LlamaGenId, VarId, forms, parse

DEPTH = 30
"""D of the paper's full network."""
BRIDGE = 6
"""N of the paper's Table 2."""
REFINER_DEPTH = 16
"""Of CoDe's refiner (CoDe at bfb204d, sample_CoDe.py)."""
RELEASED_DEPTHS = (16, 20, 24, 30)
DIT_STEPS = 50
"""Of DiT in the paper's Table 2."""

SD_AUTOENCODER_PARAMETERS = 83_653_863
"""Of sd-vae-ft-ema, which decodes DiT's latents."""
LLAMAGEN_TOKENIZER_PARAMETERS = 71_883_403
"""Of vq_ds16_c2i.pt."""


@dataclass(frozen=True)
class PaperSystem:
    """A system at the size of the paper.

    Attributes:
        name: its id.
        steps: passes through the transformer as the paper prints them.
        transformer_parameters: of each transformer.
        tokenizer_parameters: of the image tokenizer.
        stages: its transformers with their forward passes, in order.
        cache: its only cache policy: "none", "static", or "lean" for VAR with a plan that is not plain; None for VAR
            and CoDe, which have "lean" and "reference".
        authors_precision: number formats of its authors' sampling script, where they are not those of Table 2's VAR
            rows.  DiT's "fp32" lets products run in TF32.
    """

    name: str
    steps: str
    transformer_parameters: tuple[int, ...]
    tokenizer_parameters: int
    stages: tuple[NetworkPasses, ...]
    cache: CachePolicy | None = None
    authors_precision: str | None = None

    def parameter_bytes(self, precision: NumberFormats) -> int:
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
    found = parse(name)
    if isinstance(found, VarId):
        return _var_or_subnet(found)
    if isinstance(found, CodeId):
        return _code_system(found)
    if isinstance(found, DiTId) and found.size == "xl2":
        steps = found.steps or DIT_STEPS
        return PaperSystem(name, str(steps), (dit_parameters(),), SD_AUTOENCODER_PARAMETERS,
                           (DiTPasses(DiTShape(), steps),), cache="none", authors_precision="fp32")
    if found == LlamaGenId("xxl"):
        # Table 2 prints 384 steps, which is the image side: 24 x 24 tokens are decoded.
        shape = LlamaGenShape()
        return PaperSystem(name, str(shape.num_tokens), (llamagen_parameters(),), LLAMAGEN_TOKENIZER_PARAMETERS,
                           (LlamaGenPasses(shape),), cache="static", authors_precision="bf16")
    raise ValueError(f"system {name!r} is unknown; known forms: {forms()}, code-n<N>, free-code-n<N>, dit-xl2, "
                     "dit-xl2-<steps>, llamagen-xxl")


def _var_or_subnet(found: VarId) -> PaperSystem:
    """VAR-d<depth> as released, or VAR-d30 with a subnet."""
    depth = found.depth if found.kind == "var" else DEPTH
    if depth not in RELEASED_DEPTHS:
        raise ValueError(f"system {str(found)!r}: released depths at 256 x 256 are "
                         f"{', '.join(map(str, RELEASED_DEPTHS))}")
    try:
        plan = found.plan(depth, VAR_256.num_scales, BRIDGE, ladder=PAPER_DEPTHS)
    except ValueError as error:
        raise ValueError(f"system {str(found)!r}: {error}") from None
    return _var_system(str(found), VARPasses(released_shape(depth), plan))


def _var_system(name: str, *stages: VARPasses) -> PaperSystem:
    networks = [var_parameters(stage.shape.spec, VAR_256, num_classes=stage.shape.num_classes,
                               vocab_size=stage.shape.vocab_size, z_channels=stage.shape.z_channels)
                for stage in stages]
    return PaperSystem(name, stages[0].plan.steps, tuple(networks),
                       vqvae_parameters(TokenizerSpec(), VAR_256.num_scales), stages,
                       cache=None if stages[0].plan.kv.is_plain else "lean")


def _code_system(found: CodeId) -> PaperSystem:
    """CoDe: the drafter's cache is freed before the refiner starts."""
    name, drafted = str(found), found.drafted
    if not 1 <= drafted < VAR_256.num_scales:
        raise ValueError(f"system {name!r}: the drafter takes 1..{VAR_256.num_scales - 1} scales")
    drafter = VARPasses(released_shape(DEPTH), DepthPlan.full(DEPTH, drafted))
    refiner = VARPasses(released_shape(REFINER_DEPTH), DepthPlan.full(REFINER_DEPTH, VAR_256.num_scales), drafted + 1)
    steps = f"{drafted}+{VAR_256.num_scales - drafted}"
    return replace(_var_system(name, drafter, refiner), steps=steps)
