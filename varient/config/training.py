"""Settings of the networks and of their training: tokenizer, base network, supernets, ablations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from varient.config.kinds import Count, Decay, Depth, Epochs, Positive, Precision, Rate, Share, Strict, UserFile, Weight
from varient.plan import Selection
from varient.systems.names import RECIPE


class TokenizerSpec(Strict):
    """Shape of the multi-scale VQVAE; defaults are those of vae_ch160v4096z32.pth."""

    vocab_size: Positive = 4096
    z_channels: Positive = 32
    in_channels: Positive = 3
    ch: Positive = 160
    ch_mult: tuple[Positive, ...] = Field((1, 1, 2, 2, 4), min_length=1, max_length=12)
    num_res_blocks: Depth = 2
    norm_groups: Positive = 32
    using_sa: bool = True
    using_mid_sa: bool = True
    share_quant_resi: Annotated[Count, Field(le=100)] = Field(4, description="phi convolutions: one (1), some (n), "
                                                                                   "one for each scale (0)")
    quant_resi: Share = 0.5
    using_znorm: bool = False
    commitment: Weight = Field(0.25, description="beta, weight of the commitment loss")

    @model_validator(mode="after")
    def _groups_divide(self) -> TokenizerSpec:
        if self.ch % self.norm_groups:
            raise ValueError(f"ch = {self.ch} is not divisible by norm_groups = {self.norm_groups}")
        return self

    @property
    def downsampling(self) -> int:
        """Pixels of the image for one position of the latent, along a side."""
        return 2 ** (len(self.ch_mult) - 1)


class TransformerSpec(Strict):
    """Shape of the VAR transformer."""

    depth: Depth = Field(description="D, the layers of the full network")
    embed_dim: Positive
    num_heads: Positive
    mlp_ratio: Rate = 4.0
    attn_l2_norm: bool = Field(True, description="true in every released checkpoint")
    shared_aln: bool = Field(False, description="one adaLN projection for all blocks (VAR-d36 at 512 pixels)")
    norm_eps: Rate = 1e-6
    cond_drop_rate: Share = 0.1
    drop_path_rate: Decay = Field(0.0, description="stochastic depth of the last block in training")

    @classmethod
    def released(cls, depth: int) -> TransformerSpec:
        """The shape of the released VAR-d<depth> at 256 x 256: width 64 d, d heads, drop path 0.1 d / 24."""
        return cls(depth=depth, embed_dim=64 * depth, num_heads=depth, drop_path_rate=0.1 * depth / 24)

    @model_validator(mode="after")
    def _heads_divide(self) -> TransformerSpec:
        if self.embed_dim % self.num_heads:
            raise ValueError(f"embed_dim = {self.embed_dim} is not divisible by num_heads = {self.num_heads}")
        return self


class Optimizer(Strict):
    """AdamW and its learning rate over time."""

    learning_rate: Rate
    batch_size: Positive
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: Count = 0
    weight_decay: Weight = 0.05
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    clip_norm: Rate = Field(1.0, description="largest gradient norm")


class TokenizerTraining(Optimizer):
    """Training of the tokenizer from scratch."""

    steps: Positive
    restart_every: Positive = Field(50, description="steps between restarts of unused codes")


class BaseTraining(Optimizer):
    """Training of the full network from scratch."""

    epochs: Annotated[Epochs, Field(ge=1)]
    precision: Precision = Field("fp32", description="of matrix products, by autocast; weights stay fp32")


class ClassifierTraining(Optimizer):
    """Training of the small classifiers whose features and verdicts replace Inception's on small images."""

    epochs: Annotated[Epochs, Field(ge=1)]
    feature_dim: Positive = 64


class SupernetTraining(Optimizer):
    """Fine-tuning of the full network with one subnet (Sec. 3.3, Algorithm 1)."""

    batches_per_epoch: Positive | None = Field(None, description="shortens an epoch; null passes over all data")
    precision: Precision = Field("fp32", description="of matrix products, by autocast; the paper's is fp16 (Table 6)")


class TokenizerConfig(Strict):
    model: TokenizerSpec = TokenizerSpec()
    weights: UserFile | None = None
    training: TokenizerTraining | None = None


class BaseConfig(Strict):
    weights: UserFile | None = None
    training: BaseTraining | None = None


def _some_epoch(phases: tuple[int, int, int]) -> tuple[int, int, int]:
    if not any(phases):
        raise ValueError("three phases of no epoch are no training")
    return phases


Phases = Annotated[tuple[Epochs, Epochs, Epochs], AfterValidator(_some_epoch)]
Subnet = Annotated[Depth, Field(ge=2)]
"""d of a subnet: Eq. 2 keeps the first and the last layer."""


class Recipe(Strict):
    """A way to train a supernet that differs from the paper's in what is said here."""

    ratio: Share | None = Field(None, description="p(subnet) at every epoch in place of the three phases (Fig. 2a)")
    bridge: Count | None = Field(None, description="N in training and sampling; 0 is the skip-all design (Table 5)")
    phases: dict[Depth, Phases] = Field({}, description="d -> epochs, in place of the paper's")
    automatic: bool = Field(False, description="find the ends of the phases from validation losses, in as many epochs")
    distillation: Share = Field(0.0, description="weight of the full network's logits as target of subnet batches, "
                                                 "the rest being the true tokens")
    shared: bool = Field(False, description="one supernet for all depths, each subnet batch drawing one of them")
    validate_every: Epochs = Field(0, description="epochs between losses of subnet and full network on held-out images "
                                                 "(Fig. 2b); 0: none; `automatic` takes 1")


RecipeName = Annotated[str, Field(pattern=f"^{RECIPE.pattern}$")]
"""Ids hold it among other parts, so `varient.experiment` refuses those that could be taken for another part."""


class SupernetConfig(Strict):
    """The subnets and the three phases of each (Table 7)."""

    depths: tuple[Subnet, ...] = Field(min_length=1, description="d of each supernet; one is trained for each")
    bridge: Count = Field(6, description="N: scales 1..N run at full depth")
    selection: Selection = "equidistant"
    phases: dict[Depth, Phases] = Field(description="d -> epochs of phases 1, 2, 3 (Table 7)")
    counterparts: dict[Depth, Count] = Field({}, description="d of the paper's 30 layers -> d here, where they differ")
    recipes: dict[RecipeName, Recipe] = Field({}, description="further ways of training, by the name in their ids")
    training: SupernetTraining

    def phases_of(self, depth: int, recipe: Recipe) -> tuple[int, int, int]:
        """Epochs of the three phases of a subnet; of a shared supernet, those of its shallowest subnet."""
        depth = self.paced_by(depth, recipe)
        return recipe.phases.get(depth) or self.phases[depth]

    def paced_by(self, depth: int, recipe: Recipe) -> int:
        """The d whose phases a training has: its own, or that of the shallowest subnet where it is shared."""
        return min(self.depths) if recipe.shared else depth

    def kept_epochs(self, depth: int, recipe: Recipe) -> tuple[int, ...]:
        """E_1 and E_2, after which a training keeps its weights (Fig. 2c, Fig. 7); fixed ratios do so too."""
        first, second, third = self.phases_of(depth, recipe)
        return tuple(sorted({first, first + second} - {0, first + second + third}))

    def end_of_phase(self, phase: int, depth: int, recipe: Recipe) -> int | None:
        """E_1, E_2 or the last epoch; None for a phase that has no epochs, and so no end of its own."""
        epochs = self.phases_of(depth, recipe)[:phase]
        return sum(epochs) if len(epochs) == phase and epochs[-1] else None


Trainings = Annotated[Positive, Field(le=100)]


class AblationConfig(Strict):
    """What is compared beyond Tables 2 and 4; which records that takes says `varient.ablations`."""

    depth: Subnet = Field(description="d of the arms that have one")
    seeds: Trainings = Field(3, description="trainings of the three phases and of the arm without a bridge")
    ratios: dict[RecipeName, Trainings] = Field({}, description="recipe of a fixed p(subnet) -> trainings (Fig. 2a)")
    stages: tuple[RecipeName, ...] = Field((), description="those also scored at the end of phase 1 (Fig. 2c)")
    evolution: tuple[Subnet, ...] = Field((), description="d of the subnets scored at each phase's end (Fig. 7)")
    skip_all: RecipeName | None = Field(None, description="recipe without a bridge (Table 5)")
    extensions: tuple[RecipeName, ...] = Field((), description="recipes beyond the paper")
    zones: tuple[tuple[Positive, Positive], ...] = Field((), description="first and last scale of each (Table 1)")
    zone_depths: tuple[Subnet, ...] = Field((), description="untrained subnets that are put into the zones")
    bridges: tuple[Positive, ...] = Field((), description="N of the grid d x N (Table 8)")
