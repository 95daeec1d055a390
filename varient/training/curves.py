"""Training curves: one value per step and curve, for TensorBoard and for figures."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from varient.files import atomic_path
from varient.npz import SampleError, member_names, small_array
from varient.training.distributed import Part, is_main_process, sum_over_processes
from varient.yaml_file import shortened

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Probe = Callable[[int, Part], Iterable[Mapping[str, Tensor]]]
"""(step, part) -> named losses whose gradients are measured one by one, such as those of the two zones (Fig. 3b).

Losses of one mapping may share a graph.  A generator makes the next mapping only when the last one's graph is freed.
"""


class CurveError(ValueError):
    """A file of curves is missing, damaged or something else; the message names it."""


class Curves:
    """Named values over steps.

    A training records ``loss``, ``learning_rate``, ``gradient_norm`` (before clipping) and ``skipped`` (1 where fp16
    left out an update); a loss function adds its own with `record`.

    Args:
        gradient_groups: name -> prefixes of parameter names; each step records ``gradient_norm/<name>`` (before
            clipping; 0 if the group has no gradient).
        probe: losses whose gradients are computed separately every ``probe_every`` steps, with the weights and the
            batch of that step (first micro-batch of each process); records ``gradient_norm/<loss>/<group>``.  Its
            losses are scaled under fp16; under fsdp the probe is disabled with a warning.
    """

    def __init__(self, gradient_groups: Mapping[str, Sequence[str]] | None = None, probe: Probe | None = None,
                 probe_every: int = 50) -> None:
        if probe and not gradient_groups:
            raise ValueError("a probe needs gradient_groups to measure")
        if probe_every < 1:
            raise ValueError(f"probe_every = {probe_every} must be at least 1")
        self.gradient_groups = {name: tuple(begins) for name, begins in (gradient_groups or {}).items()}
        self.probe, self.probe_every = probe, probe_every
        self._now: dict[str, list[Tensor]] = {}
        self._history: dict[str, tuple[array, array]] = {}
        self._writer: SummaryWriter | None = None

    # -- for loss functions ------------------------------------------------------------------------------------

    def record(self, name: str, value: Tensor | float) -> None:
        """Add a value of the current part; the step's value is the mean over its parts.

        All parts of a step must record the same names.
        """
        value = value.detach() if isinstance(value, Tensor) else torch.tensor(float(value))
        self._now.setdefault(name, []).append(value)

    # -- for the training loop ---------------------------------------------------------------------------------

    def groups_of(self, model: nn.Module) -> dict[str, list[nn.Parameter]]:
        """The parameters of each gradient group.

        Raises:
            ValueError: no parameter name has one of the prefixes.
        """
        named = dict(model.named_parameters())
        for group, begins in self.gradient_groups.items():
            for begin in begins:
                if not any(name.startswith(begin) for name in named):
                    raise ValueError(f"gradient group {group!r}: no parameter's name begins with {begin!r}")
        return {group: [parameter for name, parameter in named.items() if name.startswith(begins)]
                for group, begins in self.gradient_groups.items()}

    def average(self) -> dict[str, float]:
        """The means of what was recorded since the last call, over all parts in all processes.

        Raises:
            ValueError: processes recorded different names.
        """
        names = sorted(self._now)
        counts = torch.tensor([len(self._now[name]) for name in names], dtype=torch.float64)
        # One transfer for all: they may lie on a GPU.
        device = next((value.device for values in self._now.values() for value in values if value.is_cuda), "cpu")
        sums = torch.stack([sum(value.to(device).double() for value in self._now[name]) for name in names]).cpu()
        self._now = {}
        mine = float(zlib.crc32("\n".join(names).encode()))
        # The checksum travels alone: vectors of different lengths must not meet.
        one, all_names = sum_over_processes(torch.tensor([1.0, mine], dtype=torch.float64)).tolist()
        if all_names != one * mine:
            raise ValueError(f"processes recorded different curves; this one has {', '.join(names)}")
        means = sum_over_processes(sums) / sum_over_processes(counts)
        return dict(zip(names, means.tolist(), strict=True))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Append the values of a step."""
        for name, value in values.items():
            steps, series = self._history.setdefault(name, (array("i"), array("f")))
            steps.append(step)
            series.append(value)
            if self._writer:
                self._writer.add_scalar(name, value, step)

    def open(self, folder: Path, first_step: int) -> None:
        """Open TensorBoard's event file; values from ``first_step`` on of an earlier, killed run are purged."""
        if is_main_process():
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder), purge_step=first_step, flush_secs=30)

    def flush(self, path: Path) -> None:
        """Write all curves to ``path`` (npz, see `read_curves`) and bring the event file up to date."""
        if self._writer:
            self._writer.flush()
        if is_main_process():
            arrays: dict[str, Any] = {f"{name}:{part}": np.array(values) for name, pair in self._history.items()
                      for part, values in zip(("step", "value"), pair, strict=True)}
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, **arrays)

    def close(self) -> None:
        """Close the event file."""
        if self._writer:
            self._writer.close()
            self._writer = None

    def state(self) -> dict[str, list[Tensor]]:
        """The history as tensors."""
        return {name: [torch.tensor(steps, dtype=torch.int32), torch.tensor(series, dtype=torch.float32)]
                for name, (steps, series) in self._history.items()}

    def restore(self, state: dict[str, list[Tensor]]) -> None:
        """Replace the history by that of `state`."""
        self._history = {name: (array("i", steps.tolist()), array("f", series.tolist()))
                         for name, (steps, series) in state.items()}

    def series(self, name: str) -> list[float]:
        """The values of a curve in all steps so far, float32."""
        return list(self._history.get(name, ((), ()))[1])

    def count(self, name: str) -> int:
        """Number of steps in which a curve was not 0."""
        return sum(value != 0 for value in self.series(name))


def read_curves(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Curves of a training: name -> steps (int32) and values (float32).

    Raises:
        CurveError: the file is missing or damaged, or holds something else.
    """
    try:
        members = member_names(path)
        if odd := sorted(member for member in members if not member.endswith((":step", ":value"))):
            raise CurveError(f"{path}: holds {shortened(odd[0])}, expected the curves of a training")
        names = sorted({member.rpartition(":")[0] for member in members})
        curves = {name: (small_array(path, f"{name}:step"), small_array(path, f"{name}:value")) for name in names}
    except SampleError as error:
        raise CurveError(f"{error}; expected the curves of a training") from None
    for name, (steps, values) in curves.items():
        if steps.ndim != 1 or steps.shape != values.shape or steps.dtype != np.int32 or values.dtype != np.float32:
            raise CurveError(f"{path}: curve {shortened(name)} has steps {steps.dtype} {steps.shape} and values "
                             f"{values.dtype} {values.shape}, expected int32 and float32 of one length")
    return curves


def norm_of(gradients: Sequence[Tensor | None]) -> Tensor:
    """L2 norm of all gradients as one vector, also of sharded ones; None counts as 0."""
    present = [gradient for gradient in gradients if gradient is not None]
    norm = nn.utils.get_total_norm(present) if present else torch.zeros(())
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def probed_norms(losses: Mapping[str, Tensor], groups: Mapping[str, list[nn.Parameter]], processes: int = 1,
                 scale: float = 1.0) -> dict[str, Tensor]:
    """Norm of the gradient of each loss, averaged over the processes, in each group of parameters.

    The losses are processed one after the other, because each gradient is as large as the network.

    Args:
        losses: scalars that may share a graph, which is freed in the last backward pass.
        groups: name -> parameters; their ``grad`` is not changed.
        scale: loss scale; the losses are multiplied and the norms divided by it, because small gradients would
            underflow in 16-bit precision.
    """
    norms: dict[str, Tensor] = {}
    last = len(losses) - 1
    for number, (zone, loss) in enumerate(losses.items()):
        found = _gradient_norms(loss * scale, groups, processes, keep_graph=number < last)
        norms |= {f"gradient_norm/{zone}/{group}": norm / (processes * scale) for group, norm in found.items()}
    return norms


def _gradient_norms(loss: Tensor, groups: Mapping[str, list[nn.Parameter]], processes: int, *,
                    keep_graph: bool) -> dict[str, Tensor]:
    """Norm of a loss's gradient in each group, summed over the processes; the gradients are freed."""
    parameters = list({id(p): p for members in groups.values() for p in members}.values())
    gradients = torch.autograd.grad(loss, parameters, retain_graph=keep_graph, allow_unused=True)
    if processes > 1:
        for gradient in gradients:  # the same ones are None in all processes, because all run the same plan
            if gradient is not None:
                torch.distributed.all_reduce(gradient)
    by_id = dict(zip(map(id, parameters), gradients, strict=True))
    return {group: norm_of([by_id[id(p)] for p in members]) for group, members in groups.items()}
