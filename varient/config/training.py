"""Settings of the networks and their training: tokenizer, base network, supernets, ablations."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from varient.config.kinds import (
    Count,
    Decay,
    Depth,
    Epochs,
    Extended,
    Positive,
    Precision,
    Rate,
    Share,
    Strict,
    UserFile,
    Weight,
)
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
    share_quant_resi: Annotated[Count, Field(le=100)] = Field(4, description="number of phi convolutions; 1: shared by "
                                                                              "all scales, 0: one per scale")
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
        """Downsampling factor: pixels per latent position along a side."""
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
    drop_path_rate: Decay = Field(0.0, description="stochastic depth rate of the last block in training")

    @classmethod
    def released(cls, depth: int) -> TransformerSpec:
        """Shape of the released VAR-d<depth> for 256 x 256 pixels: width 64 d, d heads, drop path 0.1 d / 24."""
        return cls(depth=depth, embed_dim=64 * depth, num_heads=depth, drop_path_rate=0.1 * depth / 24)

    @model_validator(mode="after")
    def _heads_divide(self) -> TransformerSpec:
        if self.embed_dim % self.num_heads:
            raise ValueError(f"embed_dim = {self.embed_dim} is not divisible by num_heads = {self.num_heads}")
        return self


RateSchedule = Literal["constant", "cosine"]


class Optimizer(Strict):
    """Settings of AdamW and its learning rate schedule."""

    learning_rate: Rate
    batch_size: Positive
    schedule: RateSchedule = "constant"
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
    precision: Precision = Field("fp32", description="precision of autocast; weights stay fp32")


class ClassifierTraining(Optimizer):
    """Training of the small classifiers that replace Inception for small images."""

    epochs: Annotated[Epochs, Field(ge=1)]
    feature_dim: Positive = 64


class SupernetTraining(Optimizer):
    """Fine-tuning of the full network with one subnet (Sec. 3.3, Algorithm 1)."""

    batches_per_epoch: Positive | None = Field(None, description="batches per epoch; null: a full pass over the data")
    precision: Precision = Field("fp32", description="precision of autocast; fp16 in the paper (Table 6)")


class TokenizerConfig(Strict):
    model: TokenizerSpec = TokenizerSpec()
    weights: UserFile | None = None
    training: TokenizerTraining | None = None


class BaseConfig(Strict):
    weights: UserFile | None = None
    training: BaseTraining | None = None


def _some_epoch(phases: tuple[int, int, int]) -> tuple[int, int, int]:
    if not any(phases):
        raise ValueError("all three phases have 0 epochs; at least one needs an epoch")
    return phases


Phases = Annotated[tuple[Epochs, Epochs, Epochs], AfterValidator(_some_epoch)]
Subnet = Annotated[Depth, Field(ge=2)]
"""d of a subnet, at least 2: Eq. 2 keeps the first and the last layer."""


class Recipe(Extended):
    """A supernet training that differs from the paper's in the settings given here."""

    LATER: ClassVar[frozenset[str]] = frozenset({"last_ratio", "order", "learning_rate", "schedule"})

    ratio: Share | None = Field(None, description="fixed p(subnet) instead of the three phases (Fig. 2a)")
    bridge: Count | None = Field(None, description="N in training and sampling; 0: the skip-all design (Table 5)")
    phases: dict[Depth, Phases] = Field({}, description="d -> epochs of the phases, instead of supernet.phases")
    automatic: bool = Field(False, description="set the ends of the phases by validation losses; same total of epochs")
    distillation: Share = Field(0.0, description="weight of the distillation loss (target: the full network's logits) "
                                                 "in subnet batches; the rest is the cross-entropy")
    shared: bool = Field(False, description="one supernet for all depths; each subnet batch trains a random one")
    validate_every: Epochs = Field(0, description="epochs between validations of subnet and full network (Fig. 2b); 0: "
                                                 "no validation; `automatic` uses 1")
    last_ratio: Share | None = Field(None, description="p(subnet) in phase 3, instead of 1")
    order: Literal["reversed", "shuffled"] | None = Field(None, description="p(subnet) of the three phases' epochs in "
                                                                            "reversed order, or shuffled by the seed "
                                                                            "of the training")
    learning_rate: Rate | None = Field(None, description="instead of supernet.training's")
    schedule: RateSchedule | None = Field(None, description="of the learning rate, instead of supernet.training's")

    @model_validator(mode="after")
    def _phases_are_there(self) -> Recipe:
        replaced_by = "ratio" if self.ratio is not None else "automatic" if self.automatic else None
        of_phases = [name for name in ("last_ratio", "order") if getattr(self, name) is not None]
        if replaced_by and of_phases:
            raise ValueError(f"'{of_phases[0]}' is about the three phases, which '{replaced_by}' replaces")
        return self


RecipeName = Annotated[str, Field(pattern=f"^{RECIPE.pattern}$", max_length=50)]
"""Part of system ids; `varient.experiment` refuses names that could be read as another part of an id."""


class SupernetConfig(Strict):
    """Settings of the supernets: the subnets and the three phases of each (Table 7)."""

    depths: tuple[Subnet, ...] = Field(min_length=1, description="subnet depths d; one supernet is trained for each")
    bridge: Count = Field(6, description="N: scales 1..N run at full depth")
    selection: Selection = "equidistant"
    phases: dict[Depth, Phases] = Field(description="d -> epochs of phases 1, 2, 3 (Table 7)")
    counterparts: dict[Depth, Count] = Field({}, description="d in the paper (30 layers) -> corresponding d here")
    recipes: dict[RecipeName, Recipe] = Field({}, description="variants of the training by their names in system ids")
    training: SupernetTraining

    def phases_of(self, depth: int, recipe: Recipe) -> tuple[int, int, int]:
        """Epochs of the three phases of a training; for a shared supernet, those of its shallowest subnet."""
        depth = self.paced_by(depth, recipe)
        return recipe.phases.get(depth) or self.phases[depth]

    def training_of(self, recipe: Recipe) -> SupernetTraining:
        """Settings of the optimizer in a training by a recipe."""
        wanted = {"learning_rate": recipe.learning_rate, "schedule": recipe.schedule}
        return self.training.model_copy(update={name: value for name, value in wanted.items() if value is not None})

    def paced_by(self, depth: int, recipe: Recipe) -> int:
        """The d whose phases a training uses: ``depth``, or the smallest one for a shared supernet."""
        return min(self.depths) if recipe.shared else depth

    def kept_epochs(self, depth: int, recipe: Recipe) -> tuple[int, ...]:
        """Epochs after which a training keeps its weights: E_1 and E_2 (Fig. 2c, Fig. 7), also for fixed ratios."""
        first, second, third = self.phases_of(depth, recipe)
        return tuple(sorted({first, first + second} - {0, first + second + third}))

    def end_of_phase(self, phase: int, depth: int, recipe: Recipe) -> int | None:
        """E_1, E_2 or the last epoch; None for a phase without epochs."""
        epochs = self.phases_of(depth, recipe)[:phase]
        return sum(epochs) if len(epochs) == phase and epochs[-1] else None


Trainings = Annotated[Positive, Field(le=100)]


class DepthArms(Strict):
    """The comparisons of trainings that can be made at any depth."""

    seeds: Trainings = Field(3, description="number of seeds of the three-phase training and of skip_all")
    ratios: dict[RecipeName, Trainings] = Field({}, description="fixed-ratio recipe -> number of seeds (Fig. 2a)")
    skip_all: RecipeName | None = Field(None, description="recipe without a bridge (Table 5)")


class AblationConfig(DepthArms):
    """The ablations; `varient.ablations` lists the systems of each comparison."""

    depth: Subnet = Field(description="d of the arms, unless a setting below names others")
    further: dict[Subnet, DepthArms] = Field({}, description="further d -> comparisons that are made there too")
    stages: tuple[RecipeName, ...] = Field((), description="recipes also scored at the end of phase 1 (Fig. 2c)")
    refined: tuple[Subnet, ...] = Field((), description="further d with networks scored before and after phase 3")
    evolution: tuple[Subnet, ...] = Field((), description="d of the subnets scored at the end of each phase (Fig. 7)")
    exposures: dict[RecipeName, Trainings] = Field({}, description="recipe -> number of seeds; as many subnet batches "
                                                                   "as the three phases, or another order or end")
    rates: tuple[RecipeName, ...] = Field((), description="recipes that differ in the learning rate")
    bases: Annotated[Count, Field(le=100)] = Field(0, description="number of further base networks, of other seeds")
    on_bases: tuple[RecipeName, ...] = Field((), description="recipes that start from each of them, beside the three "
                                                             "phases")
    plain: tuple[RecipeName, ...] = Field((), description="recipes whose full networks are also sampled without "
                                                          "guidance and filters, beside the base and the three phases")
    extensions: tuple[RecipeName, ...] = Field((), description="recipes beyond the paper")
    zones: tuple[tuple[Positive, Positive], ...] = Field((), description="first and last scale of each zone (Table 1)")
    zone_depths: tuple[Subnet, ...] = Field((), description="d of the untrained subnets that run in the zones")
    bridges: tuple[Positive, ...] = Field((), description="N of the grid d x N (Table 8)")

    @property
    def by_depth(self) -> dict[int, DepthArms]:
        """d -> comparisons that are made there; the ablations' own depth first."""
        return {self.depth: self, **self.further}
