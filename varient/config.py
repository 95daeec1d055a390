"""The experiment config: one validated, frozen tree of settings.  Imports neither torch nor pandas.

A config holds science (sizes, depths, epochs, seeds, guidance); threads, partitions and devices belong to the
command line or the workflow profile.  Weights are either trained here or read from a file of the user.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from varient.plan import DepthPlan, Selection, nested_layers
from varient.pyramid import Pyramid
from varient.systems.names import RECIPE
from varient.yaml_file import ConfigError, read_yaml, shortened


def _number(value: Any) -> Any:
    """Python takes true for 1; in a config it is a slip."""
    if isinstance(value, bool):
        raise ValueError(f"expected a number, got {json.dumps(value)}")
    return value


Whole = Annotated[int, BeforeValidator(_number), Field(gt=-2 ** 31, lt=2 ** 31)]
Real = Annotated[float, BeforeValidator(_number), Field(ge=-1e15, le=1e15)]
Share = Annotated[Real, Field(ge=0, le=1)]
Positive = Annotated[Whole, Field(ge=1)]
Count = Annotated[Whole, Field(ge=0)]
Rate = Annotated[Real, Field(gt=0)]
Weight = Annotated[Real, Field(ge=0)]
Batch = Annotated[Positive, Field(le=2 ** 20)]
"""Images at once, which are listed."""
Depth = Annotated[Positive, Field(le=1000)]
"""Layers, which are listed for each scale."""
Epochs = Annotated[Count, Field(le=100_000)]
Decay = Annotated[Real, Field(ge=0, lt=1)]
Id = Annotated[str, Field(max_length=100)]
Precision = Literal["fp32", "fp16", "bf16"]
CachePolicy = Literal["lean", "reference", "static", "none"]
"""What a system's KV cache does; VAR-like systems know the first two (`varient.models.kv_cache`)."""


def _writable_in_a_line(value: Any) -> Any:
    if value == "":
        raise ValueError("an empty path names nothing")
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in str(value)):
        raise ValueError("a path may hold no line break and no other control character")
    return value


def _no_placeholder(path: Path) -> Path:
    if found := _PLACEHOLDER.search(str(path)):
        raise ValueError(f"the workflow would read {found[0]} in the path of a file as a placeholder: name the file "
                         "otherwise, or give a link to it")
    return path


_PLACEHOLDER = re.compile(r"\{\s*[.\w]+\s*(,([^{}]|\{\d+(,\d+)?\})*)?\}|<[a-z][a-z0-9_]*>")
"""A wildcard or path variable of Snakemake's, which has no way to write either for itself."""

UserPath = Annotated[Path, BeforeValidator(_writable_in_a_line)]
"""Where something of the user's lies."""
UserFile = Annotated[UserPath, AfterValidator(_no_placeholder)]
"""A file of the user's, or a folder of such, that rules of the workflow have as input."""



class ImageSet(NamedTuple):
    """Images of one source, all in memory: their side in pixels, and how many are divided."""

    side: int
    num_classes: int
    count: int


IN_MEMORY = {"digits": ImageSet(8, 10, 1797), "fashion-mnist": ImageSet(28, 10, 60_000)}
"""scikit-learn's digits; Fashion-MNIST's training images, beside which there is a test set."""


class Strict(BaseModel):
    """Knows its keys, and no number that is none or infinite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RandAugment(Strict):
    """RandAugment of torchvision: its set of operations, black where nothing is left, nearest neighbour."""

    num_ops: Annotated[Positive, Field(le=100)] = 2
    magnitude: Annotated[Whole, Field(ge=0, le=30)] = Field(9, description="of torchvision's 31 steps, 0..30")


class Augmentation(Strict):
    """Random changes of the training images, each a switch; the defaults are the paper's (Table 6) and VAR's crop."""

    random_crop: bool = Field(True, description="VAR's; false: the centre")
    flip: Share = Field(0.5, description="probability of a mirror image")
    randaugment: RandAugment | None = RandAugment()
    mixup: Weight = Field(0.2, description="alpha; the first image weighs Beta(alpha, alpha); 0: no mixing")

    @property
    def cacheable(self) -> bool:
        """Whether an image and its mirror image are all there is, so that their tokens can be kept."""
        return not (self.random_crop or self.randaugment or self.mixup)


NO_AUGMENTATION = Augmentation(random_crop=False, flip=0, randaugment=None, mixup=0)


FashionFile = Literal["train-images-idx3-ubyte", "train-labels-idx1-ubyte",
                      "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Split = Literal["train", "holdout", "test"]
"""What networks learn from; what is held out of the same images; a test set of its own."""


class DataConfig(Strict):
    """What images to learn from, and what is done to those of a folder before the tokenizer sees them."""

    source: Literal["digits", "fashion-mnist", "imagenet"] = Field(
        description="scikit-learn's bundled digits, a folder of Fashion-MNIST's files, or an ImageNet folder")
    image_size: Annotated[Positive, Field(le=2 ** 14)] = Field(description="side in pixels")
    num_classes: Positive
    holdout: Count = Field(0, description="images kept from training (digits, fashion-mnist), split off with the same "
                                          "class shares")
    root: UserPath | None = Field(None, description="folder with train/<class>/<image>, and val/ (imagenet), or with "
                                                    "the four IDX files (fashion-mnist)")
    checksums: dict[FashionFile, Sha256] = Field({}, description="of unpacked files that are not the published ones "
                                                                 "(fashion-mnist)")
    resize: Real = Field(1.125, ge=1, le=100, description="shorter side before the crop, in image_size (imagenet)")
    augmentation: Augmentation | None = Field(None, description="random changes of training images (imagenet); {} is "
                                                                "the paper's, null none")
    unreadable: Literal["error", "skip"] = Field("error", description="what an unreadable image is; skip puts another "
                                                                      "of its class in its place (imagenet)")

    @property
    def in_memory(self) -> bool:
        """Whether all images are kept in memory and their real ones in archives; a folder's are read one by one."""
        return self.source != "imagenet"

    @property
    def splits(self) -> tuple[Split, ...]:
        """Of images in memory."""
        return ("train", "holdout", "test") if self.source == "fashion-mnist" else ("train", "holdout")

    @property
    def reference_split(self) -> Split:
        """Real images that generated ones are compared with.

        Those held out, where they are many enough, so that a copy of a training image gains nothing; of digits there
        are too few.
        """
        return "holdout" if self.source == "fashion-mnist" else "train"

    @property
    def floor_split(self) -> Split:
        """Real images that are scored as if they were generated: what a perfect generator would get."""
        return "test" if self.source == "fashion-mnist" else "holdout"

    @property
    def cacheable(self) -> bool:
        """Whether the tokens of these images can be made once and kept in a cache."""
        return self.source == "imagenet" and (self.augmentation or NO_AUGMENTATION).cacheable

    @model_validator(mode="after")
    def _settings_are_of_the_source(self) -> DataConfig:
        for source, settings in _SETTINGS_OF_SOURCES.items():
            if self.source != source and (useless := sorted(self.model_fields_set & settings)):
                raise ValueError(f"{', '.join(useless)}: for {source} only, {self.source} are used as they are")
        if images := IN_MEMORY.get(self.source):
            if (self.image_size, self.num_classes) != (images.side, images.num_classes):
                raise ValueError(f"{self.source} are {images.side} x {images.side} in {images.num_classes} classes; "
                                 f"data says image_size = {self.image_size}, num_classes = {self.num_classes}")
            if not images.num_classes <= self.holdout <= images.count - images.num_classes:
                raise ValueError(f"holdout = {self.holdout} must leave each class on each side, of {images.count} "
                                 f"images of {self.source}")
        return self

    @property
    def num_training(self) -> int | None:
        """Images to learn from; None where files say how many."""
        images = None if self.checksums else IN_MEMORY.get(self.source)
        return images.count - self.holdout if images else None

    @model_serializer(mode="wrap")
    def _without_settings_of_no_effect(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What a source does not have is no part of its digest either."""
        others = {name for source, settings in _SETTINGS_OF_SOURCES.items() if source != self.source
                  for name in settings}
        return {name: value for name, value in serialize(self).items() if name not in others}


_SETTINGS_OF_SOURCES = {"imagenet": {"resize", "augmentation", "unreadable"}, "fashion-mnist": {"checksums"}}


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


class SamplingConfig(Strict):
    """Generation protocol (paper, Sec. 4.1; guidance is VAR's own, the paper does not print it)."""

    num_images: Positive
    shards: Annotated[Positive, Field(le=100_000)]
    batch_size: Batch
    cfg: Weight = Field(1.5, description="guidance at the last scale, ramped linearly from 0 at the first")
    top_k: Count = Field(900, description="0 keeps all")
    top_p: Share = Field(0.96, description="0 keeps all")
    decoded_at_once: Batch = Field(16, description="images in the decoder together")
    precision: Precision = Field("fp32", description="of weights and matrix products")

    def of_images(self) -> dict[str, Any]:
        """The settings that decide what the images are, JSON-able; the others only divide the work.

        An image is a function of its seed, index and label; what it is computed together with moves roundings at most.
        In the decoder they are a pixel's last step.  In the transformer a token can hang on them: in 16 bits those of
        many images do, so there the size of a batch counts, and the number of shards, whose last batches are smaller.
        In float32 hardly any does, no more than on another machine.
        """
        only_divides = {"decoded_at_once"}
        if self.precision == "fp32":
            only_divides |= {"batch_size", "shards"}
        return self.model_dump(mode="json", exclude=only_divides)

    @property
    def image_sections(self) -> tuple[str, ...]:
        """The same settings by name, for `ExperimentConfig.digest`."""
        return tuple(f"sampling.{name}" for name in self.of_images())


PROFILED = ("sampling.cfg", "sampling.top_k", "sampling.top_p", "sampling.decoded_at_once", "profiling")
"""Settings that latency and memory depend on; batch and precision are a profile's own."""


Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class EvaluationConfig(Strict):
    """Scores and the networks that they need (docs/protocol.md)."""

    protocol: Literal["digits", "fashion-mnist", "adm", "torch-fidelity", "clean-fid"] = "digits"
    classifier: ClassifierTraining | None = Field(None, description="digits, fashion-mnist: trained here")
    inception_weights: UserFile | None = Field(None, description="file of the other protocols' Inception")
    weights_sha256: Sha256 | None = Field(None, description="of that file, where it is not the published one")
    reference: UserFile | None = Field(None, description="what samples are compared with; digits: the training images, "
                                                         "fashion-mnist: those held out")
    kid_subset_size: Annotated[Positive, Field(ge=2)] = Field(1000, description="digits, fashion-mnist")
    neighborhood: Positive = Field(3, description="digits, fashion-mnist: k of precision and recall")
    fid_infinity: bool = Field(True, description="extrapolate FID to infinitely many images")

    @property
    def trains_its_network(self) -> bool:
        """Whether features come from a classifier of the experiment's own images, not from Inception."""
        return self.protocol in ("digits", "fashion-mnist")

    @model_validator(mode="after")
    def _networks_named(self) -> EvaluationConfig:
        needed = ("classifier",) if self.trains_its_network else ("inception_weights", "reference")
        for name in needed:
            if getattr(self, name) is None:
                raise ValueError(f"protocol {self.protocol} needs '{name}'")
        return self


class ProfilingConfig(Strict):
    """Measurement of latency and memory; the command line may ask for another batch, precision or cache."""

    batch_size: Batch = 64
    precision: Precision = Field("fp32", description="of the transformer's weights")
    cache_policy: Literal["lean", "reference"] = Field("lean", description="reference is the released code's")
    threads: Annotated[Positive, Field(le=1024)] = Field(1, description="CPU threads")
    warmup: Annotated[Count, Field(le=10 ** 6)] = 2
    repeats: Annotated[Positive, Field(le=10 ** 6)] = 10


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


# Where files lie that trainings read.  What is in them counts otherwise: the identity of a training holds its folder's
# images (`TokenBatches.digests`) and the hashes of the networks it reads; released weights are inputs of the
# workflow's rules, and rules that read images name their folder.
_PLACES = (("data", "root"), ("tokenizer", "weights"), ("base", "weights"))


class ExperimentConfig(Strict):
    """One experiment; the same DAG runs all of them."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    seed: Count = 0
    data: DataConfig
    patch_nums: tuple[Positive, ...] = Field(max_length=100)
    tokenizer: TokenizerConfig
    transformer: TransformerSpec
    base: BaseConfig
    supernet: SupernetConfig
    sampling: SamplingConfig
    evaluation: EvaluationConfig
    profiling: ProfilingConfig = ProfilingConfig()
    systems: dict[str, dict[str, Any]] = Field({}, description="settings of further system families, each under its "
                                                               "name; the family validates them")
    ablations: AblationConfig | None = None
    rows: tuple[Id, ...] = Field((), description="ids of the systems that Table 2 shows besides VAR and its subnets")

    @field_validator("systems", mode="before")
    @classmethod
    def _as_json_has_it(cls, systems: Any) -> Any:
        """Keys as text: stages read the config from JSON, and must find what the YAML said."""
        try:
            return json.loads(json.dumps(systems, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"holds what JSON does not have: {error}") from None

    @property
    def pyramid(self) -> Pyramid:
        """The scales r_1..r_K."""
        return Pyramid(self.patch_nums)

    def recipe(self, name: str | None) -> Recipe:
        """The recipe of that name; None names the paper's.

        Raises:
            ValueError: there is none.
        """
        if name is None:
            return Recipe()
        if name not in self.supernet.recipes:
            known = ", ".join(self.supernet.recipes) or "none"
            raise ValueError(f"supernet.recipes has no {name!r}; it has {known}")
        return self.supernet.recipes[name]

    def plan(self, subnet_depth: int | None = None, bridge: int | None = None) -> DepthPlan:
        """The plan of subnet d with bridge N (defaults: the full network, the config's N)."""
        depth, num_scales = self.transformer.depth, len(self.patch_nums)
        if subnet_depth is None or subnet_depth == depth:
            return DepthPlan.full(depth, num_scales)
        bridge = self.supernet.bridge if bridge is None else bridge
        return DepthPlan.bridge(depth, subnet_depth, bridge, num_scales, self.subnet_layers(subnet_depth))

    def subnet_layers(self, subnet_depth: int) -> tuple[int, ...] | None:
        """Layers of the subnet of depth d; None where they are Eq. 2's."""
        if self.supernet.selection == "nested":
            return nested_layers(self.transformer.depth, subnet_depth, self.supernet.depths)
        return None

    def counterpart(self, paper_depth: int) -> int | None:
        """The depth here that stands for a subnet depth of the paper (of 30 layers), or None where there is none."""
        depth = self.supernet.counterparts.get(paper_depth, paper_depth)
        return depth if depth in self.supernet.depths else None

    def digest(self, *sections: str) -> str:
        """SHA-256 over the seed and the named sections (default: all), to tell whether a result is still current.

        A dot names a section of a section, as in `systems.dit`; one that is absent counts as empty.  Where the
        images, the tokenizer's and the base network's released weights lie is left out: a training knows them by names
        and sizes, or by hashes, and goes on wherever they are mounted.
        """
        settings = self.model_dump(mode="json")
        for section, place in _PLACES:
            del settings[section][place]
        chosen = settings
        if sections:
            chosen = {name: reduce(lambda part, key: part.get(key, {}), name.split("."), settings)
                      for name in ("seed", *sections)}
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()

    @model_validator(mode="after")
    def _sizes_fit(self) -> ExperimentConfig:
        latent, remainder = divmod(self.data.image_size, self.tokenizer.model.downsampling)
        if remainder or self.pyramid.patch_nums[-1] != latent:
            raise ValueError(
                f"patch_nums ends at {self.patch_nums[-1]}, but images of {self.data.image_size} pixels and a "
                f"tokenizer that halves {len(self.tokenizer.model.ch_mult) - 1} times need a latent side of "
                f"{self.data.image_size / self.tokenizer.model.downsampling:g}")
        if self.tokenizer.model.in_channels != 3:
            raise ValueError(f"tokenizer.model.in_channels = {self.tokenizer.model.in_channels}: images have 3")
        self._check_subnets()
        self._check_ablations()
        if self.sampling.num_images % self.data.num_classes:
            raise ValueError(f"sampling.num_images = {self.sampling.num_images} is not a multiple of "
                             f"data.num_classes = {self.data.num_classes}: class counts must be equal")
        if self.sampling.shards > self.sampling.num_images:
            raise ValueError(f"sampling.shards = {self.sampling.shards} is above num_images = "
                             f"{self.sampling.num_images}: a shard would be empty")
        self.check_batches(self)
        if self.evaluation.protocol == "digits":
            fewest = min(self.sampling.num_images, self.data.num_training or self.sampling.num_images)
            if self.evaluation.neighborhood >= fewest:
                raise ValueError(f"evaluation.neighborhood = {self.evaluation.neighborhood} must be below the {fewest} "
                                 "images that have neighbours")
        return self

    def check_batches(self, settings: BaseModel, section: str = "") -> None:
        """See that no training somewhere in ``settings`` wants larger batches than there are images, where that is
        known.

        Raises:
            ValueError: one does.
        """
        for place, training in _trainings(settings, section):
            if training.batch_size > (self.data.num_training or training.batch_size):
                raise ValueError(f"{place}.batch_size = {training.batch_size} is above the {self.data.num_training} "
                                 "images there are to train on")

    def _check_subnets(self) -> None:
        """See that each subnet, recipe and counterpart can be had."""
        supernet = self.supernet
        if len(set(supernet.depths)) < len(supernet.depths):
            raise ValueError("supernet.depths names a depth twice")
        for depth in supernet.depths:
            try:
                self.plan(depth)
            except ValueError as error:
                raise ValueError(f"supernet: {error}") from None
            if depth not in supernet.phases:
                raise ValueError(f"supernet.phases has no entry for depth {depth}")
        for paper_depth, depth in supernet.counterparts.items():
            if depth and depth not in supernet.depths:
                raise ValueError(f"supernet.counterparts: {paper_depth} -> {depth}, which is none of supernet.depths; "
                                 "0 says that there is none")
        for name, recipe in supernet.recipes.items():
            if recipe.bridge is not None and recipe.bridge > len(self.patch_nums):
                raise ValueError(f"supernet.recipes.{name}: bridge N = {recipe.bridge} is above the "
                                 f"{len(self.patch_nums)} scales")
            if recipe.automatic and recipe.ratio is not None:
                raise ValueError(f"supernet.recipes.{name}: a fixed ratio has no phases to find")
            if strangers := sorted(set(recipe.phases) - set(supernet.depths)):
                raise ValueError(f"supernet.recipes.{name}.phases: {strangers[0]} is none of supernet.depths")

    def _check_ablations(self) -> None:
        """See that the arms are of subnets that are trained, and of zones that there are."""
        if not (settings := self.ablations):
            return
        for name, depth in (("depth", settings.depth), *(("evolution", depth) for depth in settings.evolution)):
            if depth not in self.supernet.depths:
                raise ValueError(f"ablations.{name}: {depth} is none of supernet.depths = "
                                 f"{', '.join(map(str, self.supernet.depths))}")
        num_scales = len(self.patch_nums)
        for first, last in settings.zones:
            if not first <= last <= num_scales:
                raise ValueError(f"ablations.zones: [{first}, {last}] is no zone of the scales 1..{num_scales}")

    @model_validator(mode="after")
    def _inputs_named(self) -> ExperimentConfig:
        for name, part in (("tokenizer", self.tokenizer), ("base", self.base)):
            if (part.weights is None) == (part.training is None):
                raise ValueError(f"{name} needs exactly one of 'weights' (a file) and 'training' (settings)")
        if self.data.source == "imagenet" and self.data.root is None and self.base.training:
            raise ValueError("data.root is missing: the ImageNet folder to train on")
        if self.data.source == "fashion-mnist" and self.data.root is None:
            raise ValueError("data.root is missing: the folder with Fashion-MNIST's four IDX files")
        if self.data.in_memory and self.evaluation.trains_its_network and self.evaluation.protocol != self.data.source:
            raise ValueError(f"evaluation.protocol = {self.evaluation.protocol!r} does not score {self.data.source}, "
                             f"whose own is {self.data.source!r}")
        return self


def parse_config(settings: object, origin: str) -> ExperimentConfig:
    """Validate settings read from ``origin`` (a file name for the message); `varient.experiment` checks what they name.

    Raises:
        ConfigError: one line for each wrong key.
    """
    try:
        return ExperimentConfig.model_validate(settings)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{origin}: {line}" for line in error_lines(error))) from None


def error_lines(error: ValidationError, section: str = "") -> list[str]:
    """One line for each wrong key: where, what is wrong, and what was found there; of very many, the first."""
    lines = []
    for e in error.errors(include_url=False)[:_MOST_LINES]:
        place = ".".join(filter(None, [section, *(shortened(str(key))[1:-1] for key in e["loc"])])) or "config"
        found = f" (got {shortened(e['input'])})" if e["type"] not in ("missing", "value_error") else ""
        lines.append(f"{place}: {e['msg'].removeprefix('Value error, ')}{found}")
    if (more := error.error_count() - len(lines)) > 0:
        lines.append(f"{section or 'config'}: {more} more wrong keys")
    return lines


_MOST_LINES = 20


def _trainings(settings: BaseModel, section: str) -> Iterator[tuple[str, Optimizer]]:
    """Every training that settings hold, with its place."""
    for name, value in settings:
        place = f"{section}.{name}" if section else name
        parts = value.items() if isinstance(value, dict) else ()
        for key, part in ((place, value), *((f"{place}.{key}", part) for key, part in parts)):
            if isinstance(part, Optimizer):
                yield key, part
            elif isinstance(part, BaseModel):
                yield from _trainings(part, key)


def load_config(path: Path) -> ExperimentConfig:
    """Read and validate a YAML or JSON config.

    Raises:
        ConfigError: a file that `read_yaml` refuses, or wrong keys.
    """
    return parse_config(read_yaml(path), str(path))
