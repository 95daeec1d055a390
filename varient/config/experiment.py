"""The config as a whole: consistency checks between sections, digest, and reading from a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from varient.config.data import MOST_CACHED_CODES, DataConfig
from varient.config.kinds import Count, Id, Positive, Strict
from varient.config.measuring import (
    FRECHET_FEATURES,
    REHEARSAL,
    EvaluationConfig,
    ProfilingConfig,
    SamplingConfig,
)
from varient.config.training import (
    AblationConfig,
    BaseConfig,
    Optimizer,
    Recipe,
    SupernetConfig,
    TokenizerConfig,
    TransformerSpec,
)
from varient.image_tree import some
from varient.plan import DepthPlan, nested_layers
from varient.pyramid import Pyramid
from varient.yaml_file import ConfigError, read_yaml, shortened

# Paths of input files, which do not enter the digest.  Their contents are tracked elsewhere: the identity of a training
# contains its images (`TokenBatches.digests`) and the hashes of the networks it reads; released weights are inputs of
# the workflow's rules, and rules that read images have the folder as a parameter.
_PLACES = (("data", "root"), ("tokenizer", "weights"), ("base", "weights"))


class ExperimentConfig(Strict):
    """The settings of one experiment; all experiments run through the same DAG."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$", max_length=100)]
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
    systems: dict[str, dict[str, Any]] = Field({}, description="settings of further system families by family name; "
                                                               "each family validates its own")
    ablations: AblationConfig | None = None
    held_out_loss: bool | None = Field(None, description="losses on held-out images as columns of Tables 4, 5 and 8; "
                                                         "default: for images in memory (a folder needs val/)")
    held_out_images: Positive | None = Field(None, description="number of held-out images for these losses, evenly "
                                                               "spaced; default: all")
    rows: tuple[Id, ...] = Field((), description="ids of the systems in Table 2 besides VAR and its subnets")
    rivals: tuple[Id, ...] = Field((), description="ids of VAR with another cache or other layers, measured for the "
                                                   "table of rivals")

    @field_validator("systems", mode="before")
    @classmethod
    def _as_json_has_it(cls, systems: Any) -> Any:
        """Convert keys to text: stages read the config from JSON and must get the same values as from YAML."""
        try:
            return json.loads(json.dumps(systems, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"contains a value that JSON cannot represent: {error}") from None

    @property
    def pyramid(self) -> Pyramid:
        """The scales r_1..r_K."""
        return Pyramid(self.patch_nums)

    @property
    def shows_held_out_loss(self) -> bool:
        """Whether the tables show losses on held-out images."""
        return self.data.in_memory if self.held_out_loss is None else self.held_out_loss

    def recipe(self, name: str | None) -> Recipe:
        """The recipe of the given name; None is the paper's training.

        Raises:
            ValueError: there is no such recipe.
        """
        if name is None:
            return Recipe()
        if name not in self.supernet.recipes:
            known = ", ".join(self.supernet.recipes) or "none"
            raise ValueError(f"supernet.recipes has no {name!r}; it has {known}")
        return self.supernet.recipes[name]

    def plan(self, subnet_depth: int | None = None, bridge: int | None = None) -> DepthPlan:
        """The depth plan of the subnet of depth d with bridge size N (defaults: the full network, the config's N)."""
        depth, num_scales = self.transformer.depth, len(self.patch_nums)
        if subnet_depth is None or subnet_depth == depth:
            return DepthPlan.full(depth, num_scales)
        bridge = self.supernet.bridge if bridge is None else bridge
        return DepthPlan.bridge(depth, subnet_depth, bridge, num_scales, self.subnet_layers(subnet_depth))

    def subnet_layers(self, subnet_depth: int) -> tuple[int, ...] | None:
        """Layers of the subnet of depth d; None if they are those of Eq. 2."""
        if self.supernet.selection == "nested":
            return nested_layers(self.transformer.depth, subnet_depth, self.supernet.depths)
        return None

    def counterpart(self, paper_depth: int) -> int | None:
        """The subnet depth here that corresponds to one of the paper (30 layers), or None if there is none."""
        depth = self.supernet.counterparts.get(paper_depth, paper_depth)
        return depth if depth in self.supernet.depths else None

    def digest(self, *sections: str) -> str:
        """SHA-256 over the seed and the named sections (default: all), which tells whether a result is up to date.

        A dot separates nested sections, as in `systems.dit`; an absent section counts as empty.  The paths of the
        images and of the released weights of tokenizer and base network are not included: their contents are tracked
        elsewhere, so that they may be moved without invalidating results.
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
                f"tokenizer that halves them {len(self.tokenizer.model.ch_mult) - 1} times need a latent side of "
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
        if self.data.in_memory and (self.held_out_images or 0) > self.data.holdout:
            raise ValueError(f"held_out_images = {self.held_out_images} is above data.holdout = {self.data.holdout}")
        self.check_batches(self)
        self._check_scored()
        return self

    def check_batches(self, settings: BaseModel, section: str = "") -> None:
        """Check that no batch size in ``settings`` exceeds the number of training images, if that is known.

        Raises:
            ValueError: one does.
        """
        for place, training in _trainings(settings, section):
            if training.batch_size > (self.data.num_training or training.batch_size):
                raise ValueError(f"{place}.batch_size = {training.batch_size} is above the {self.data.num_training} "
                                 "images there are to train on")

    def _check_scored(self) -> None:
        """See that there are as many images as the scores take, before any is made."""
        settings = self.evaluation
        features = settings.num_features
        compared = (f"evaluation.classifier.feature_dim = {features}" if settings.trains_its_network else
                    f"evaluation.protocol = {settings.protocol!r}, of {features} features")
        hint = f" ({REHEARSAL!r} takes {FRECHET_FEATURES[REHEARSAL] + 1})" if settings.protocol == "adm" else ""
        sets = {"sampling.num_images": self.sampling.num_images}
        if settings.trains_its_network:
            if self.data.in_memory:
                sets |= {"the training set": self.data.num_training or self.sampling.num_images,
                         "data.holdout": self.data.holdout}
                if settings.halves and self.data.num_training:
                    sets["half of the training set"] = self.data.num_training // 2
            for name, count in sets.items():
                if settings.neighborhood >= count:
                    raise ValueError(f"evaluation.neighborhood = {settings.neighborhood} must be below the {count} "
                                     f"images of {name}")
        for name, count in sets.items():
            if features is not None and features >= count:
                raise ValueError(f"{name} = {count} is too few for {compared}: FID takes {features + 1} images or "
                                 f"more{hint}")

    def _check_subnets(self) -> None:
        """Check each subnet, recipe and counterpart."""
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
                raise ValueError(f"supernet.counterparts: {paper_depth} -> {depth}, which is not in supernet.depths; "
                                 "0 means no counterpart")
        for name, recipe in supernet.recipes.items():
            if recipe.bridge is not None and recipe.bridge > len(self.patch_nums):
                raise ValueError(f"supernet.recipes.{name}: bridge N = {recipe.bridge} is above the "
                                 f"{len(self.patch_nums)} scales")
            if recipe.automatic and recipe.ratio is not None:
                raise ValueError(f"supernet.recipes.{name}: a recipe with a fixed ratio cannot be automatic")
            if strangers := sorted(set(recipe.phases) - set(supernet.depths)):
                raise ValueError(f"supernet.recipes.{name}.phases: {strangers[0]} is not in supernet.depths")

    def _check_ablations(self) -> None:
        """Check that the ablations use depths of trained subnets and existing scales."""
        if not (settings := self.ablations):
            return
        named = {"depth": (settings.depth,), "evolution": settings.evolution, "refined": settings.refined,
                 "further": tuple(settings.further)}
        for name, depth in ((name, depth) for name, depths in named.items() for depth in depths):
            if depth not in self.supernet.depths:
                raise ValueError(f"ablations.{name}: {depth} is not in supernet.depths = "
                                 f"{', '.join(map(str, self.supernet.depths))}")
        for name in ("refined", "further"):
            if settings.depth in getattr(settings, name):
                raise ValueError(f"ablations.{name}: {settings.depth} is ablations.depth already")
        num_scales = len(self.patch_nums)
        for first, last in settings.zones:
            if not first <= last <= num_scales:
                raise ValueError(f"ablations.zones: [{first}, {last}] is not a zone of the scales 1..{num_scales}")

    @model_validator(mode="after")
    def _inputs_named(self) -> ExperimentConfig:
        for name, part in (("tokenizer", self.tokenizer), ("base", self.base)):
            if (part.weights is None) == (part.training is None):
                raise ValueError(f"{name} needs exactly one of 'weights' (a file) and 'training' (settings)")
        if self.ablations and self.ablations.bases and self.base.training is None:
            raise ValueError("ablations.bases: other base networks need base.training; this base is read from a file")
        if self.data.source == "fashion-mnist" or (self.data.source == "imagenet" and self.base.training):
            _ = self.data.folder  # raises if it is missing
        if self.data.cacheable and self.tokenizer.model.vocab_size > MOST_CACHED_CODES:
            raise ValueError(f"tokenizer.model.vocab_size = {self.tokenizer.model.vocab_size} is above "
                             f"{MOST_CACHED_CODES}: with this data.augmentation tokens are cached, as uint16")
        if self.data.in_memory and self.evaluation.trains_its_network and self.evaluation.protocol != self.data.source:
            raise ValueError(f"evaluation.protocol = {self.evaluation.protocol!r} cannot score {self.data.source}; "
                             f"use {self.data.source!r}")
        return self


def parse_config(settings: object, origin: str) -> ExperimentConfig:
    """Validate settings that were read from ``origin`` (a file name for the message).

    The systems that they name are checked by `varient.experiment`.

    Raises:
        ConfigError: one line for each wrong key.
    """
    try:
        return ExperimentConfig.model_validate(settings)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{origin}: {line}" for line in error_lines(error))) from None


def error_lines(error: ValidationError, section: str = "") -> list[str]:
    """One line for each invalid key: the key, what is wrong with it, and its value.  Beyond a limit, one line names
    the others."""
    errors = error.errors(include_url=False)
    places = [".".join(filter(None, [section, *(shortened(str(key))[1:-1] for key in e["loc"])])) or "config"
              for e in errors]
    lines = []
    for place, e in zip(places[:_MOST_EXPLAINED], errors, strict=False):
        found = f" (got {shortened(e['input'])})" if e["type"] not in ("missing", "value_error") else ""
        lines.append(f"{place}: {e['msg'].removeprefix('Value error, ')}{found}")
    if others := places[_MOST_EXPLAINED:]:
        lines.append(f"{section or 'config'}: {len(others)} more wrong keys: {some(others)}")
    return lines


_MOST_EXPLAINED = 4


def _trainings(settings: BaseModel, section: str) -> Iterator[tuple[str, Optimizer]]:
    """All training settings within ``settings``, each with its key."""
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
        ConfigError: as `read_yaml`, or invalid keys.
    """
    return parse_config(read_yaml(path), str(path))
