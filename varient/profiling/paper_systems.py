"""The systems of the paper's Table 2 at their own size, and their relatives: released networks at 256 x 256.

| id | what runs |
|---|---|
| `var-d16`, `var-d20`, `var-d24`, `var-d30` | the released VAR, all layers at all scales |
| `variant-d16`, `variant-d16-n7`, `variant-d16-full` | VAR-d30 with N bridge scales (6 unless said), then I_16 |
| `free-d16`, `free-d16-n7` | as `variant-d16`, without its training: the same cost |
| `code-n6` | CoDe: VAR-d30 drafts N scales; VAR-d16 takes in the tokens of N + 1 scales at once and refines the rest |
| `free-code-n6` | training-free CoDe, the two networks as released: the same cost |
| `dit-xl2`, `dit-xl2-250` | DiT-XL/2 in the 50 steps of Table 2, or the 250 of its authors |
| `llamagen-xxl` | LlamaGen-XXL at 384 x 384, a token a pass |
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from varient.config import CachePolicy, TokenizerSpec, TransformerSpec
from varient.plan import DepthPlan
from varient.profiling.baseline_work import DiTShape, DiTStage, LlamaGenShape, LlamaGenStage
from varient.profiling.parameters import dit_parameters, llamagen_parameters, var_parameters, vqvae_parameters
from varient.profiling.work import AnyStage, Precision, Stage, VARShape
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
_CODE = re.compile(r"(free-)?code-n(?P<drafted>\d+)")
_DIT = re.compile(r"dit-xl2(-(?P<steps>250))?")

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
        stages: what its transformers do, in order.
        cache: what its KV cache does where that is no choice, "none" or "static"; None for VAR's, which know both
            policies.
        authors_precision: number formats of its authors' sampling script, where they are not those of Table 2's VAR
            rows.  DiT's "fp32" lets products run in TF32.
    """

    name: str
    steps: str
    transformer_parameters: tuple[int, ...]
    tokenizer_parameters: int
    stages: tuple[AnyStage, ...]
    cache: CachePolicy | None = None
    authors_precision: str | None = None

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
    if match := _DIT.fullmatch(name):
        steps = int(match["steps"] or 50)
        return PaperSystem(name, str(steps), (dit_parameters(),), SD_AUTOENCODER_PARAMETERS,
                           (DiTStage(DiTShape(), steps),), cache="none", authors_precision="fp32")
    if name == "llamagen-xxl":
        # Table 2 prints 384 steps, which is the image side: 24 x 24 tokens are decoded.
        shape = LlamaGenShape()
        return PaperSystem(name, str(shape.num_tokens), (llamagen_parameters(),), LLAMAGEN_TOKENIZER_PARAMETERS,
                           (LlamaGenStage(shape),), cache="static", authors_precision="bf16")
    raise ValueError(f"system {name!r} is unknown; known forms: var-d<D>, variant-d<d>, variant-d<d>-n<N>, "
                     f"variant-d<d>-full, free-d<d>, free-d<d>-n<N>, code-n<N>, free-code-n<N>, dit-xl2, "
                     f"dit-xl2-250, llamagen-xxl")


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
