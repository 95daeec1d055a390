"""The one optimisation loop: AdamW, clipping, learning rate over time, curves, exact resume, many processes."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from tqdm import tqdm

from varient.config import Optimizer, Precision
from varient.files import write_text
from varient.models.checkpoint import load_strictly
from varient.training import distributed
from varient.training.curves import Curves, norm_of, probed_norms
from varient.training.distributed import Hardware, Objective, Part
from varient.training.state import (
    newest_training_state,
    read_training_state,
    remove_training_states,
    remove_unfinished,
    report_other_states,
    save_training_state,
    states_folder,
)

log = logging.getLogger(__name__)

LossOfStep = Callable[[int], Tensor]
LossOfPart = Callable[[int, Part], Tensor]

MAX_SKIPS_IN_A_ROW = 25
"""fp16 updates left out one after another before a training counts as diverged: the scale then fell by 2^25."""


class DivergedError(RuntimeError):
    """The loss or its gradient is no finite number."""


def step_seed(seed: int, step: int) -> int:
    """Seed of a step's draws; mixed, because torch's generator for CPUs reads 32 bits of it alone."""
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
        work_dir: Path, identity: str, title: str, save_every: int = 200,
        before_step: Callable[[int], None] | None = None, loss_of_part: LossOfPart | None = None,
        precision: Precision = "fp32", hardware: Hardware | None = None, keep: int = 3, curves: Curves | None = None,
        finish: Callable[[list[float]], None] | None = None) -> list[float]:
    """Minimise a loss over the parameters of ``model``, in place.

    All randomness of a step is drawn from torch's global generator, seeded with (seed, step) beforehand: nothing of it
    needs to be stored, and a run that was killed and started again ends with the same weights as an unbroken one.

    Args:
        loss_of_step: the loss of a step's whole batch; one process on a CPU only.
        loss_of_part: in place of it, the mean loss of one of the equal parts of a step's batch (see `Part.rows`).
        work_dir: gets ``losses.json``, ``curves.npz``, TensorBoard's events and, until the end, resumable states.
        identity: digest of everything the run depends on (parts separated by colons); states of another identity are
            reported, not resumed.
        save_every: steps between states, of which the newest ``keep`` are kept.
        before_step: called before each step in each process, for work outside the gradient.
        precision: of matrix products, by autocast; weights stay float32.  fp16 scales the loss, and an update whose
            gradients overflow is left out, counted and recorded.
        hardware: how to spread the work; default: from the environment, else this process on its CPU.
        curves: what to record besides the standard curves.
        finish: called with the losses in the main process once all steps are done and before the states are removed:
            writing the result here, a full disk costs no training.

    Returns:
        The loss of each step, averaged over its parts.

    Raises:
        ValueError: nothing to do (a training of no steps would pass initial weights off as trained), processes that do
            not divide the batch, a whole-batch loss on more than one process, hardware that is not there.
        DivergedError: a loss or gradient that is not finite, before it reaches the weights; saved states stay.
    """
    if steps < 1:
        raise ValueError(f"{title}: no training step; epochs times batches is 0 (is batch_size above the images?)")
    if (loss_of_step is None) == (loss_of_part is None):
        raise TypeError("fit needs exactly one of loss_of_step and loss_of_part")
    if save_every < 1 or keep < 1:
        raise ValueError(f"save_every = {save_every} and keep = {keep} must be at least 1")
    hardware = Hardware.from_environment() if hardware is None else hardware
    curves = Curves() if curves is None else curves
    recomputed = distributed.blocks(model) if hardware.recompute else []
    with distributed.processes(hardware, precision, model) as accelerator, distributed.recomputed(recomputed):
        accumulation = distributed.accumulation_steps(settings.batch_size, accelerator.num_processes,
                                                      hardware.micro_batch, title)
        if loss_of_part is None:
            if accelerator.num_processes * accumulation > 1 or accelerator.device.type != "cpu":
                raise ValueError(f"{title}: this loss takes whole batches on one CPU process; on "
                                 f"{accelerator.num_processes} x {accelerator.device.type} with {accumulation} "
                                 "micro-batches it must be written as loss_of_part")

            def loss_of_part(step: int, part: Part) -> Tensor:
                return loss_of_step(step)

        run = _Run(model, loss_of_part, settings, identity, title, seed, accelerator, accumulation, curves)
        return run.train(steps, work_dir, save_every, keep, before_step, finish)


class _Run:
    """One training on the processes of an accelerator."""

    def __init__(self, model: nn.Module, loss_of_part: LossOfPart, settings: Optimizer, identity: str, title: str,
                 seed: int, accelerator: Accelerator, accumulation: int, curves: Curves) -> None:
        self.model, self.loss_of_part, self.settings, self.curves = model, loss_of_part, settings, curves
        self.identity, self.title, self.seed = identity, title, seed
        self.accelerator, self.accumulation = accelerator, accumulation
        self.probing = curves.probe is not None and not accelerator.is_fsdp2
        if curves.probe and not self.probing and accelerator.is_main_process:
            log.warning("%s: the curves' probe differentiates a whole network and is left out under fsdp", title)
        self.losses: list[float] = []
        self.skips_in_a_row = 0

    def train(self, steps: int, work_dir: Path, save_every: int, keep: int, before_step: Callable[[int], None] | None,
              finish: Callable[[list[float]], None] | None) -> list[float]:
        """Resume, run the steps that are left, write the curves, hand over, clean up."""
        folder, curves_path = states_folder(work_dir, self.identity), work_dir / "curves.npz"
        main = self.accelerator.is_main_process
        work_dir.mkdir(parents=True, exist_ok=True)
        first_step = self._prepare(work_dir, folder)
        self.curves.open(work_dir / "tensorboard", first_step)
        self.objective.train()
        progress = tqdm(range(first_step, steps), initial=first_step, total=steps, desc=self.title, mininterval=2,
                        disable=not main)
        try:
            for step in progress:
                torch.manual_seed(step_seed(self.seed, step))
                if before_step:
                    before_step(step)
                values = self._step(step, learning_rate(step, steps, self.settings))
                self.losses.append(values["loss"])
                self.curves.add(step, values)
                progress.set_postfix(loss=f"{self.losses[-1]:.4f}", refresh=False)
                if (step + 1) % save_every == 0 and step + 1 < steps:
                    self.curves.flush(curves_path)
                    self._save(folder, step + 1, keep)
            self.curves.flush(curves_path)
        finally:
            self.curves.close()
        if main and (skipped := self.curves.count("skipped")):
            log.warning("%s: %d of %d updates were left out: fp16 gradients overflowed", self.title, skipped, steps)
        self.model.eval()
        distributed.return_to_cpu(self.model)
        if main:
            write_text(work_dir / "losses.json", json.dumps(self.losses))
            if finish:
                finish(self.losses)
            remove_training_states(folder)
        self.accelerator.wait_for_everyone()
        return self.losses

    def _prepare(self, work_dir: Path, folder: Path) -> int:
        """Restore the newest state if there is one, spread the network; return the first step to do."""
        state = self._newest_state(work_dir, folder)
        if state:  # before the network is cut into shards
            load_strictly(self.model, state["model"], str(folder))
        objective = Objective(self.model, self.loss_of_part, self.accelerator)
        optimizer = torch.optim.AdamW(_decay_groups(self.model, self.settings.weight_decay),
                                      lr=self.settings.learning_rate, betas=self.settings.betas)
        self.objective, self.optimizer = self.accelerator.prepare(objective, optimizer)
        self.groups = self.curves.groups_of(self.model)
        self.curves.restore(state["curves"] if state else {})
        if not state:
            return 0
        self.optimizer.load_state_dict(distributed.sharded_like(self.optimizer, state["optimizer"]))
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.losses, self.skips_in_a_row = state["losses"], state["skips_in_a_row"]
        return state["step"]

    def _newest_state(self, work_dir: Path, folder: Path) -> dict | None:
        """What the main process finds, in every process.

        Raises:
            OSError: another process cannot read the same file.
        """
        state = None
        if self.accelerator.is_main_process:
            report_other_states(work_dir, self.identity, self.title)
            remove_unfinished(folder)
            state = newest_training_state(folder)
        chosen = [None if state is None else state["step"]]
        broadcast_object_list(chosen)
        if chosen[0] is not None and state is None:
            path = folder / f"state-{chosen[0]:08d}.pt"
            if not path.exists() or (state := read_training_state(path)) is None:
                raise OSError(f"{path}: process {self.accelerator.process_index} cannot read the state that the main "
                              "process resumes; all nodes must share the folder")
        return state

    def _save(self, folder: Path, step: int, keep: int) -> None:
        state = {"identity": self.identity, "step": step, "losses": self.losses, "curves": self.curves.state(),
                 "skips_in_a_row": self.skips_in_a_row, "model": distributed.whole(self.model.state_dict()),
                 "optimizer": distributed.whole(self.optimizer.state_dict()),
                 "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else {}}
        if self.accelerator.is_main_process:
            save_training_state(folder, state, keep)

    def _step(self, step: int, rate: float) -> dict[str, float]:
        """Loss, gradient and update of one step; returns its values of the curves."""
        accelerator, curves = self.accelerator, self.curves
        drawn = torch.get_rng_state()
        probed = self._probe(step) if self.probing and step % curves.probe_every == 0 else {}
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        for turn in range(self.accumulation):
            if turn:  # draws for the whole batch are the same in each of its parts
                torch.set_rng_state(drawn)
            last = turn == self.accumulation - 1
            with nullcontext() if last else accelerator.no_sync(self.objective):
                loss = self.objective(step, self._part(step, turn))
                curves.record("loss", loss)
                accelerator.backward(loss / self.accumulation)
        values = curves.average()
        if not math.isfinite(values["loss"]):
            raise DivergedError(f"{self.title}: loss is {values['loss']} at step {step}; lower the learning rate")
        return values | probed | {"learning_rate": rate} | self._update(step)

    def _part(self, step: int, turn: int) -> Part:
        """The part of a step's batch that this process computes in its ``turn``."""
        index, count = self.accelerator.process_index * self.accumulation + turn, self.accelerator.num_processes
        return Part(index, count * self.accumulation, seed=step_seed(self.seed, step), device=self.accelerator.device)

    def _update(self, step: int) -> dict[str, float]:
        """Clip, step the optimizer, forget the gradients; returns the norms before clipping.

        Parameters without a gradient are skipped by AdamW: layers that a subnet leaves out neither decay nor coast on
        old momentum.  DDP and FSDP keep it so: a parameter that no process used stays without one.
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
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if scaler:
            values["skipped"] = float(optimizer.step_was_skipped)
            self.skips_in_a_row = self.skips_in_a_row + 1 if optimizer.step_was_skipped else 0
            if self.skips_in_a_row > MAX_SKIPS_IN_A_ROW:
                raise DivergedError(f"{self.title}: fp16 gradients overflow at any loss scale, {self.skips_in_a_row} "
                                    f"updates in a row were left out up to step {step}; train in bf16 or fp32")
        return values

    def _probe(self, step: int) -> dict[str, float]:
        """Norms of the gradients of the curves' probe, leaving no trace in weights, gradients and random states."""
        device = self.accelerator.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), self.accelerator.autocast():
            losses = self.curves.probe(step, self._part(step, 0))
            norms = probed_norms(losses, self.groups, self.accelerator.num_processes)
        return {name: norm.item() for name, norm in norms.items()}


def _decay_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Matrices decay; biases, norms and what the model lists in ``no_weight_decay`` (parts of names) do not."""
    exempt = getattr(model, "no_weight_decay", ())
    decayed, plain = [], []
    for name, parameter in model.named_parameters():
        small = parameter.ndim < 2 or any(part in name for part in exempt)
        (plain if small else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
