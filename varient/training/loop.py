"""The training loop: AdamW, gradient clipping, learning rate schedule, curves, exact resuming, multiple processes."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from varient.config import Optimizer, Precision
from varient.files import only_writer, remove_unfinished, write_text
from varient.models.checkpoint import load_strictly
from varient.sources import sources_digest
from varient.training import distributed
from varient.training.curves import Curves, Probe, norm_of, probed_norms
from varient.training.distributed import Objective, Part
from varient.training.hardware import Hardware, accumulation_steps
from varient.training.result import Result
from varient.training.state import (
    TrainingState,
    newest_training_state,
    read_training_state,
    remove_training_states,
    report_other_states,
    save_training_state,
    states_folder,
)

log = logging.getLogger(__name__)

LossOfStep = Callable[[int], Tensor]
LossOfPart = Callable[[int, Part], Tensor]
Evaluate = Callable[[Callable[[], Tensor]], Tensor]
"""Evaluates a function of the network in all processes like a loss, but without gradients or random numbers."""
Validate = Callable[[int, Evaluate], None]

MAX_SKIPS_IN_A_ROW = 25
"""Number of consecutive skipped fp16 updates at which a training counts as diverged: the loss scale fell by 2^25."""


class DivergedError(RuntimeError):
    """The loss or its gradient is not finite."""


class BusyError(OSError):
    """Another training is running in the same folder."""


def step_seed(seed: int, step: int) -> int:
    """Seed of the random numbers of a step; hashed, because torch's CPU generator uses only 32 bits of a seed."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0])


def learning_rate(step: int, total_steps: int, settings: Optimizer) -> float:
    """Learning rate of step 0..total_steps-1: linear warm-up, then constant or a half cosine down to zero."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.learning_rate
    progress = (step - settings.warmup_steps) / max(total_steps - settings.warmup_steps, 1)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def fit(model: nn.Module, loss_of_step: LossOfStep | None = None, *, steps: int, settings: Optimizer, seed: int,
        work_dir: Path, identity: str, title: str, before_step: Callable[[int], None] | None = None,
        loss_of_part: LossOfPart | None = None, validate: Validate | None = None, precision: Precision = "fp32",
        hardware: Hardware | None = None, keep: int = 3, curves: Curves | None = None, output: Path | None = None,
        finish: Callable[[list[float]], None] | None = None) -> list[float]:
    """Minimise a loss over the parameters of ``model``, in place.

    All random numbers of a step come from torch's global generator, which is seeded with (seed, step) before the step.
    Random states therefore need not be stored, and a resumed training ends with the same weights as an uninterrupted
    one.

    Args:
        loss_of_step: the loss of a step's whole batch; runs only in one process on a CPU, regardless of ``hardware``.
        loss_of_part: alternative to it: the mean loss of one of the equal parts of a step's batch (see `Part.rows`).
        work_dir: folder of this training only, for ``losses.json``, ``curves.npz``, TensorBoard events and, until the
            end, resumable states.
        identity: digest of everything that the training depends on (parts separated by colons); states with another
            identity are reported and not resumed.
        before_step: called before each step in each process, for work without gradients.
        validate: called after ``before_step`` with a function that evaluates functions of the network.
        precision: precision of autocast; weights stay float32.  fp16 uses loss scaling; updates whose gradients
            overflow are skipped and counted.
        hardware: execution settings; default: from the environment.
        keep: number of newest states that are kept.
        curves: what to record besides the standard curves.
        output: the weight file that ``finish`` writes, with ``identity`` as ``settings`` in its description.  It is
            kept in ``work_dir`` under a second name.  If either exists already, nothing is trained.
        finish: called with the losses in the main process after the last step and before the states are removed, so
            that a failed write (full disk) can be repeated without training again.

    Returns:
        The loss of each step, averaged over its parts; empty if ``output`` existed.

    Raises:
        ValueError: there are no steps (initial weights would be saved as trained ones), the number of processes does
            not divide the batch, a whole-batch loss is used with several processes, or hardware is missing.
        BusyError: another training is using ``work_dir``.
        DivergedError: a loss or gradient is not finite; it is raised before the update, and saved states are kept.
    """
    if steps < 1:
        raise ValueError(f"{title}: no training step; epochs times batches is 0 (is batch_size above the images?)")
    if (loss_of_step is None) == (loss_of_part is None):
        raise TypeError("fit needs exactly one of loss_of_step and loss_of_part")
    if keep < 1:
        raise ValueError(f"keep = {keep} must be at least 1")
    hardware = Hardware.from_environment() if hardware is None else hardware
    module = (loss_of_step or loss_of_part).__module__
    if loss_of_step is not None:
        hardware, loss_of_part = _for_whole_batches(hardware, title), _of_whole_batches(loss_of_step)
    assert loss_of_part is not None  # one of the two was given
    recomputed = distributed.blocks(model) if hardware.recompute else []
    with ExitStack() as held:
        accelerator = held.enter_context(distributed.processes(hardware, precision, model))
        held.enter_context(distributed.recomputed(recomputed))
        run = _Run(model, loss_of_part, settings, identity, title, seed, work_dir, accelerator, hardware,
                   Curves() if curves is None else curves, sources_digest(__name__, module))
        result = Result(output, work_dir, identity, title, module) if output else None

        def is_finished() -> bool:
            held.enter_context(only_writer(work_dir, lambda holder: BusyError(
                f"{title}: another training is running in {work_dir}; wait until it has ended, or end it: {holder}")))
            remove_unfinished(work_dir)
            return result is not None and result.is_there()

        if distributed.from_main_process(is_finished):
            return []
        return run.train(steps, keep, before_step, validate, finish, result)


def _for_whole_batches(hardware: Hardware, title: str) -> Hardware:
    """Execution settings for a whole-batch loss: one process on a CPU.

    Raises:
        ValueError: a launcher started several.
    """
    if distributed.started_processes() > 1:
        raise ValueError(f"{title}: its loss takes whole batches, so it runs in one process, not in "
                         f"{distributed.started_processes()}; start it without a launcher")
    plain = Hardware(workers=hardware.workers, save_every=hardware.save_every)
    if hardware != plain:
        log.warning("%s: its loss takes whole batches, so it runs on the CPU; device, micro-batch, strategy and "
                    "recomputation are left aside", title)
    return plain


def _of_whole_batches(loss_of_step: LossOfStep) -> LossOfPart:
    """Convert a whole-batch loss to the loss of a single part."""
    return lambda step, part: loss_of_step(step)


@dataclass
class _Run:
    """One training on the processes of an accelerator."""

    model: nn.Module
    loss_of_part: LossOfPart
    settings: Optimizer
    identity: str
    title: str
    seed: int
    work_dir: Path
    accelerator: Accelerator
    hardware: Hardware
    curves: Curves
    code: str
    losses: list[float] = field(default_factory=list)
    skips_in_a_row: int = 0

    def __post_init__(self) -> None:
        self.main = self.accelerator.is_main_process
        self.folder = states_folder(self.work_dir, self.identity)
        self.accumulation = accumulation_steps(
            self.settings.batch_size, self.accelerator.num_processes, self.hardware.micro_batch, self.title)
        self.probe = None if self.accelerator.is_fsdp2 else self.curves.probe
        if self.curves.probe and not self.probe and self.main:
            log.warning("%s: the curves' probe differentiates a whole network and is left out under fsdp", self.title)

    def train(self, steps: int, keep: int, before_step: Callable[[int], None] | None, validate: Validate | None,
              finish: Callable[[list[float]], None] | None, result: Result | None) -> list[float]:
        """Resume, run the remaining steps, write the curves, call ``finish``, and clean up."""
        curves_path, save_every = self.work_dir / "curves.npz", self.hardware.save_every
        first_step = self._prepare()
        self.curves.open(self.work_dir / "tensorboard", first_step)
        self.objective.train()
        progress = tqdm(range(first_step, steps), initial=first_step, total=steps, desc=self.title, mininterval=2,
                        disable=not self.main)
        try:
            for step in progress:
                torch.manual_seed(step_seed(self.seed, step))
                if before_step:
                    before_step(step)
                if validate:
                    validate(step, self._evaluate)
                values = self._step(step, learning_rate(step, steps, self.settings))
                self.losses.append(values["loss"])
                self.curves.add(step, values)
                progress.set_postfix(loss=f"{self.losses[-1]:.4f}", refresh=False)
                if (step + 1) % save_every == 0 and step + 1 < steps:
                    self.curves.flush(curves_path)
                    self._save(step + 1, keep)
            self.curves.flush(curves_path)
        finally:
            self.curves.close()
        if self.main and (skipped := self.curves.count("skipped")):
            log.warning("%s: %d of %d updates were left out: fp16 gradients overflowed", self.title, skipped, steps)
        self.model.eval()
        distributed.return_to_cpu(self.model)
        if self.main:
            write_text(self.work_dir / "losses.json", json.dumps(self.losses))
            if finish:
                finish(self.losses)
                if result:
                    result.keep()
            remove_training_states(self.folder)
        self.accelerator.wait_for_everyone()
        return self.losses

    def _evaluate(self, function: Callable[[], Tensor]) -> Tensor:
        self.objective.eval()
        with torch.no_grad():
            found = self.objective(function)
        self.objective.train()
        return found

    def _prepare(self) -> int:
        """Restore the newest state, if any, and prepare the network for DDP or FSDP; return the first step to run."""
        state = self._newest_state()
        if state:  # before the network is cut into shards
            load_strictly(self.model, state.model, str(self.folder))
        optimizer = torch.optim.AdamW(_decay_groups(self.model, self.settings.weight_decay),
                                      lr=self.settings.learning_rate, betas=self.settings.betas,
                                      fused=self.accelerator.device.type == "cuda")  # needs no copies of all weights
        self.objective, self.optimizer = self.accelerator.prepare(Objective(self.model, self.accelerator), optimizer)
        self.groups = self.curves.groups_of(self.model)
        self.curves.restore(state.curves if state else {})
        if not state:
            return 0
        own = self.optimizer.state_dict() | {"state": state.optimizer.state}
        self.optimizer.load_state_dict(distributed.sharded_like(self.optimizer, own))
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state.scaler)
        self.losses, self.skips_in_a_row = state.losses.tolist(), state.skips_in_a_row
        return state.step

    def _check_state(self, state: TrainingState) -> None:
        """Check that this training can resume from a state.

        Raises:
            CheckpointError: it cannot.
        """
        groups = _decay_groups(self.model, self.settings.weight_decay)
        state.check_fits(self.model, [parameter for group in groups for parameter in group["params"]],
                         is_scaled=bool(self.accelerator.scaler))

    def _newest_state(self) -> TrainingState | None:
        """The newest state as chosen by the main process, loaded in every process.

        Raises:
            OSError: another process cannot read the same file.
        """
        state = None

        def step_of_newest() -> int | None:
            nonlocal state
            report_other_states(self.work_dir, self.identity, self.title)
            remove_unfinished(self.folder)
            state = newest_training_state(self.folder, self._check_state)
            return None if state is None else state.step

        step = distributed.from_main_process(step_of_newest)
        if step is not None and not self.main:
            path = self.folder / f"state-{step:08d}.pt"
            if not path.exists() or (state := read_training_state(path, self._check_state)) is None:
                raise OSError(f"{path}: process {self.accelerator.process_index} cannot read the state that the main "
                              "process resumes; all nodes must share the folder")
        if self.main and state and state.code != self.code:
            log.warning("%s: the code of this training is not the one that saved step %d; it goes on from there, and "
                        "the result will be of both.  Delete %s to start anew.", self.title, step, self.folder)
        return state

    def _save(self, step: int, keep: int) -> None:
        state = {"identity": self.identity, "code": self.code, "step": step,
                 "losses": torch.tensor(self.losses, dtype=torch.float64),
                 "curves": self.curves.state(), "skips_in_a_row": self.skips_in_a_row,
                 "model": distributed.whole(self.model.state_dict()),
                 "optimizer": distributed.whole(self.optimizer.state_dict()),
                 "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else {}}
        if self.main:
            save_training_state(self.folder, state, keep)

    def _step(self, step: int, rate: float) -> dict[str, float]:
        """Loss, gradient and update of one step; returns its values of the curves."""
        accelerator, curves = self.accelerator, self.curves
        drawn = torch.get_rng_state()
        probed = self._probed(step, self.probe) if self.probe and step % curves.probe_every == 0 else {}
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        for turn in range(self.accumulation):
            if turn:  # random numbers for the whole batch must be the same in each part
                torch.set_rng_state(drawn)
            last = turn == self.accumulation - 1
            # fsdp reduces gradients after each micro-batch: unsharded, they would be as large as the network.
            with nullcontext() if last or accelerator.is_fsdp2 else accelerator.no_sync(self.objective):
                loss = self.objective(self.loss_of_part, step, self._part(step, turn))
                curves.record("loss", loss)
                accelerator.backward(loss / self.accumulation)
        values = curves.average()
        if not math.isfinite(values["loss"]):
            raise DivergedError(f"{self.title}: loss is {values['loss']} at step {step}; lower the learning rate")
        return values | probed | {"learning_rate": rate} | self._update(step)

    def _part(self, step: int, turn: int) -> Part:
        """The part of a step's batch that this process computes in accumulation step ``turn``."""
        index, count = self.accelerator.process_index * self.accumulation + turn, self.accelerator.num_processes
        return Part(index, count * self.accumulation, seed=step_seed(self.seed, step), device=self.accelerator.device)

    def _update(self, step: int) -> dict[str, float]:
        """Clip gradients, step the optimizer and reset the gradients; returns the norms before clipping.

        AdamW skips parameters without a gradient, so that layers that a subnet does not run get neither weight decay
        nor momentum updates.  This also holds with DDP and FSDP: a parameter that no process used has no gradient.
        """
        optimizer, scaler = self.optimizer, self.accelerator.scaler
        if scaler:
            scaler.unscale_(optimizer.optimizer)
        parameters = list(self.model.parameters())
        total = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        norms = {"gradient_norm": norm_of([total])}
        norms |= {f"gradient_norm/{name}": norm_of([p.grad for p in group]) for name, group in self.groups.items()}
        values = dict(zip(norms, torch.stack([norm.cpu() for norm in norms.values()]).tolist(), strict=True))
        if not scaler and not math.isfinite(values["gradient_norm"]):
            raise DivergedError(f"{self.title}: the gradient's norm is {values['gradient_norm']} at step {step}; lower "
                                "the learning rate")
        nn.utils.clip_grads_with_norm_(parameters, self.settings.clip_norm, total)
        scale = scaler.get_scale() if scaler else None
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if scaler:
            # A fused optimizer leaves the update out by itself, which accelerate does not see; the scale falls then.
            skipped = scaler.get_scale() < scale
            values["skipped"] = float(skipped)
            self.skips_in_a_row = self.skips_in_a_row + 1 if skipped else 0
            if self.skips_in_a_row > MAX_SKIPS_IN_A_ROW:
                raise DivergedError(f"{self.title}: fp16 gradients overflow at any loss scale, {self.skips_in_a_row} "
                                    f"updates in a row were left out up to step {step}; train in bf16 or fp32")
        return values

    def _probed(self, step: int, probe: Probe) -> dict[str, float]:
        """Gradient norms of the curves' probe; weights, gradients and random states are not changed.

        If the gradients overflow at the fp16 loss scale, as in the first steps of a training, a smaller scale is used:
        the update of such a step is skipped, but its point of the curve is still needed.
        """
        device, scaler = self.accelerator.device, self.accelerator.scaler
        scale = scaler.get_scale() if scaler else 1.0
        while True:
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                norms = self._norms_of(probe(step, self._part(step, 0)), scale)
            values = {name: norm.item() for name, norm in norms.items()}
            if scale <= 1 or all(map(math.isfinite, values.values())):
                return values
            scale = max(scale / 256, 1.0)

    def _norms_of(self, probed: Iterable[Mapping[str, Tensor]], scale: float) -> dict[str, Tensor]:
        """Norms of all losses of a probe; only the losses are computed under autocast."""
        norms: dict[str, Tensor] = {}
        rest = iter(probed)
        while True:
            with self.accelerator.autocast():
                losses = next(rest, None)
            if losses is None:
                return norms
            norms |= probed_norms(losses, self.groups, self.accelerator.num_processes, scale)


def _decay_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Parameter groups: matrices with weight decay; biases, norms and names that contain an entry of the model's
    ``no_weight_decay`` without.
    """
    exempt = getattr(model, "no_weight_decay", ())
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        small = parameter.ndim < 2 or any(part in name for part in exempt)
        (plain if small else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
