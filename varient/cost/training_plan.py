"""Predicted cost of training the VAR transformer, as a full network or as a supernet; nothing is run.

Steps, images and tokens are exact.  Each batch trains the full network or a subnet at random, so the numbers of both
and all that depends on them are expectations with a binomial spread.  FLOPs come from `training_work`, memory from
`training_memory`; a training fits if it leaves a share of the device free (`USABLE_MEMORY`).

Hours are FLOPs over the device's peak times an assumed utilisation, which has to cover reading and augmenting images,
communication and the optimizer's update.  Left out is what happens once an epoch (gradient probe, validation, saving)
and building a token cache.  The paper (Table 6: 8 H100, 1024 images a step, fp16) prints neither hours nor memory of
its trainings, so there is nothing to compare with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

from varient.config import DataConfig, ExperimentConfig, TokenizerSpec
from varient.cost.kv_accounting import passes, token_layers
from varient.cost.parameters import var_parameters, vqvae_parameters
from varient.cost.sizes import MIB
from varient.cost.training_memory import DeviceMemory, device_memory
from varient.cost.training_setting import ASSUMED_UTILISATION, TrainingSetting
from varient.cost.training_work import backward_flops, encoder_flops, forward_flops, recomputed_flops
from varient.cost.work import VARShape
from varient.plan import DepthPlan
from varient.training.course import Course, base_course, supernet_course
from varient.training.hardware import accumulation_steps
from varient.training.recipes import Supernet
from varient.training.schedule import P_START, AutomaticSchedule, ProgressiveSchedule, Schedule

IMAGES = {"imagenet": 1_281_167, "fashion-mnist": 60_000, "digits": 1797}
"""Training images before the holdout is taken: ImageNet-1k (ILSVRC 2012), Fashion-MNIST, scikit-learn's digits."""

USABLE_MEMORY = 0.9
"""Largest share of a device's memory that a training which fits may take: an assumption."""


@dataclass(frozen=True)
class BatchKind:
    """A plan that batches run: the full network or a subnet.

    Attributes:
        token_layers: number of (token, layer) pairs of one image.
        flops: FLOPs of one image, forward and backward pass.
        extra_flops: further FLOPs of one image: activation checkpointing, the full network as a distillation target.
        batches: expected number of such batches in each epoch.
    """

    name: str
    plan: DepthPlan
    token_layers: int
    flops: int
    extra_flops: int
    batches: tuple[float, ...]


@dataclass(frozen=True)
class Phase:
    """Consecutive epochs first..last (from 1) with their totals; expectations where plans are drawn.

    Attributes:
        probabilities: p(subnet) of the first and the last epoch.
        subnet_deviation: standard deviation of ``subnet_batches``.
        flops: of forward and backward passes.
        computed_flops: the same with activation checkpointing, distillation targets and the tokenizer.
    """

    name: str
    first: int
    last: int
    probabilities: tuple[float, float]
    steps: int
    images: int
    tokens: int
    full_batches: float
    subnet_batches: float
    subnet_deviation: float
    token_layers: float
    flops: float
    computed_flops: float
    hours: float


@dataclass(frozen=True)
class TrainingPlan:
    """A training before its start.

    Attributes:
        course: networks, batches and epochs of the training.
        encodes: images are encoded to tokens whenever they are read.
        probabilities: p(subnet) of each epoch.
        notes: assumptions behind the numbers.
    """

    experiment: str
    course: Course
    setting: TrainingSetting
    shape: VARShape
    tokenizer: TokenizerSpec
    num_images: int
    steps_per_epoch: int
    accumulation: int
    probabilities: tuple[float, ...]
    kinds: tuple[BatchKind, ...]
    encodes: bool
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of the weights."""
        return self.course.name

    @property
    def batch_size(self) -> int:
        """Images of a step."""
        return self.course.settings.batch_size

    @property
    def schedule(self) -> Schedule:
        """How often a subnet takes the place of the full network."""
        return self.course.schedule

    @property
    def micro_batch(self) -> int:
        """Rows of one forward pass on each device."""
        return self.batch_size // self.setting.devices // self.accumulation

    @property
    def parameters(self) -> int:
        """Of the transformer."""
        return var_parameters(self.shape.spec, self.shape.pyramid, num_classes=self.shape.num_classes,
                              vocab_size=self.shape.vocab_size, z_channels=self.shape.z_channels)

    @cached_property
    def memory(self) -> DeviceMemory:
        """Of one device."""
        return self._memory(self.micro_batch)

    @property
    def fits(self) -> bool:
        """Whether the estimate leaves a tenth of the device's memory free."""
        return self._fits(self.memory)

    @cached_property
    def largest_micro_batch(self) -> int | None:
        """The largest micro-batch whose estimate fits and that divides a device's share; None where no row does."""
        share = self.batch_size // self.setting.devices
        sizes = (size for size in range(share, 0, -1) if share % size == 0)
        return next((size for size in sizes if self._fits(self._memory(size))), None)

    def step_seconds(self, kind: BatchKind) -> float:
        """Expected time of a step, by the assumed utilisation; the tokenizer runs in float32 (`TokenBatches.batch`)."""
        encoding = self.encoder_flops / (self.setting.devices * self.setting.device.fp32_tflops * 1e12)
        ideal = self.batch_size * ((kind.flops + kind.extra_flops) / self.setting.peak_flops + encoding)
        return ideal / ASSUMED_UTILISATION

    @cached_property
    def phases(self) -> tuple[Phase, ...]:
        """The schedule's phases: three of the progressive one, else one."""
        lengths = self.schedule.phases if isinstance(self.schedule, ProgressiveSchedule) else (self.schedule.epochs,)
        ends = [sum(lengths[:count + 1]) for count in range(len(lengths))]
        return tuple(self._phase(str(number), end - length + 1, end)
                     for number, (length, end) in enumerate(zip(lengths, ends, strict=True), start=1) if length)

    @cached_property
    def total(self) -> Phase:
        """All epochs."""
        return self._phase("total", 1, self.schedule.epochs)

    def _phase(self, name: str, first: int, last: int) -> Phase:
        steps, chosen = (last - first + 1) * self.steps_per_epoch, slice(first - 1, last)
        counts = [(kind, math.fsum(kind.batches[chosen])) for kind in self.kinds]
        encoding = self.encoder_flops
        return Phase(
            name=name, first=first, last=last, steps=steps,
            probabilities=(self.probabilities[first - 1], self.probabilities[last - 1]),
            images=steps * self.batch_size, tokens=steps * self.batch_size * self.shape.pyramid.length,
            full_batches=counts[0][1], subnet_batches=math.fsum(count for _, count in counts[1:]),
            subnet_deviation=math.sqrt(math.fsum(self.steps_per_epoch * p * (1 - p)
                                                 for p in self.probabilities[chosen])),
            token_layers=self.batch_size * math.fsum(count * kind.token_layers for kind, count in counts),
            flops=self.batch_size * math.fsum(count * kind.flops for kind, count in counts),
            computed_flops=self.batch_size * math.fsum(count * (kind.flops + kind.extra_flops + encoding)
                                                       for kind, count in counts),
            hours=math.fsum(count * self.step_seconds(kind) for kind, count in counts) / 3600)

    @cached_property
    def encoder_flops(self) -> int:
        """Of one image where images are encoded on the way, else 0."""
        return encoder_flops(self.tokenizer, self.shape.pyramid) if self.encodes else 0

    def _fits(self, memory: DeviceMemory) -> bool:
        return memory.peak <= USABLE_MEMORY * self.setting.device.memory_mib * MIB

    def _memory(self, rows: int) -> DeviceMemory:
        tokenizer = vqvae_parameters(self.tokenizer, self.shape.pyramid.num_scales) if self.encodes else 0
        return device_memory(self.shape, [kind.plan for kind in self.kinds], rows, self.setting,
                             distilled=self.course.distillation > 0, probed=self.course.probed,
                             tokenizer_parameters=tokenizer)


def plan_base(config: ExperimentConfig, setting: TrainingSetting) -> TrainingPlan:
    """The training of the full network from scratch.

    Raises:
        ValueError: the config imports it, or the devices do not divide the batch.
    """
    return _plan(config, base_course(config), setting)


def plan_supernet(config: ExperimentConfig, supernet: Supernet, setting: TrainingSetting) -> TrainingPlan:
    """The fine-tuning of the full network together with its subnet, or its subnets.

    Raises:
        ValueError: a depth or a recipe that the config does not have, or devices that do not divide the batch.
    """
    return _plan(config, supernet_course(config, supernet), setting)


def training_images(data: DataConfig) -> int:
    """Images of an epoch, the holdout left out."""
    return IMAGES[data.source] - data.holdout


def probabilities(schedule: Schedule) -> tuple[float, ...]:
    """p(subnet) of each epoch; an automatic schedule, whose end is not known in advance, stays in phase 1."""
    if isinstance(schedule, AutomaticSchedule):
        return (P_START,) * schedule.epochs
    return tuple(schedule.subnet_probability(epoch) for epoch in range(1, schedule.epochs + 1))


def _plan(config: ExperimentConfig, course: Course, setting: TrainingSetting) -> TrainingPlan:
    if setting.token_cache and not config.data.cacheable:
        raise ValueError(f"{config.name}: the tokens of images that are augmented like this cannot be kept in a cache"
                         if not config.data.in_memory else f"{config.name} needs no token cache")
    num_images, model, batch_size = training_images(config.data), config.tokenizer.model, course.settings.batch_size
    steps = course.batches_per_epoch or num_images // batch_size
    if steps * course.schedule.epochs == 0:
        raise ValueError(f"{course.name}: no training step; {num_images} images in batches of {batch_size}, "
                         f"{course.schedule.epochs} epochs")
    shape = VARShape(config.transformer, config.pyramid, num_classes=config.data.num_classes,
                     vocab_size=model.vocab_size, z_channels=model.z_channels)
    shares = probabilities(course.schedule)
    target_flops = sum(forward_flops(shape, course.full).values()) if course.distillation else 0
    kinds = [_kind("full", course.full, shape, setting, 0, [steps * (1 - p) for p in shares])]
    kinds += [_kind(f"d{depth}", plan, shape, setting, target_flops, [steps * p / len(course.subnets) for p in shares])
              for depth, plan in course.subnets.items()]
    plan = TrainingPlan(
        experiment=config.name, course=course, setting=setting, shape=shape, tokenizer=model, num_images=num_images,
        steps_per_epoch=steps, probabilities=shares, kinds=tuple(kinds), notes=(),
        accumulation=accumulation_steps(batch_size, setting.devices, setting.micro_batch, course.name),
        encodes=not config.data.in_memory and not setting.token_cache)
    return replace(plan, notes=tuple(_notes(plan)))


def _kind(name: str, plan: DepthPlan, shape: VARShape, setting: TrainingSetting, target_flops: int,
          batches: list[float]) -> BatchKind:
    again = recomputed_flops(shape, plan) if setting.recompute else 0
    return BatchKind(name, plan, token_layers(passes(plan, shape.pyramid)),
                     sum(forward_flops(shape, plan).values()) + backward_flops(shape, plan), again + target_flops,
                     tuple(batches))


def _notes(plan: TrainingPlan) -> list[str]:
    setting, notes = plan.setting, [f"hours: {ASSUMED_UTILISATION:g} of the devices' peak is ASSUMED"]
    notes.append("images are encoded as they are visited, in float32: "
                 f"{plan.encoder_flops / 1e12:.3f} TFLOP an image, counted as 'extra'" if plan.encodes else
                 "tokens were encoded beforehand: the tokenizer is not counted")
    if plan.course.batches_per_epoch:
        notes.append(f"an epoch is {plan.steps_per_epoch} batches, not all {plan.num_images:,} images")
    if isinstance(plan.schedule, AutomaticSchedule):
        notes.append("automatic schedule: counted as if phase 1 (p = 0.2) never ended; its ends are found in training")
    if plan.course.distillation:
        notes.append("each subnet batch also runs the full network, forward only")
    if not plan.fits:
        best = plan.largest_micro_batch
        notes.append(f"DOES NOT FIT {USABLE_MEMORY:.0%} of {setting.device.memory_mib:,} MiB at micro-batch "
                     f"{plan.micro_batch}; "
                     + (f"the largest that does is {best}" if best else "nor does a single row"))
    notes.append("the paper prints no training time and no training memory: there is nothing to compare with")
    return notes
