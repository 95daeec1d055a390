"""Schedules: the probability of training a subnet instead of the full network (Sec. 3.3, Algorithm 1).

A schedule is a pure function of the epoch, 1..E, and of the validation losses of earlier epochs, which the paper's
schedules ignore.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Validation(NamedTuple):
    """Validation losses after an epoch."""

    subnet: float
    full: float


P_START = 0.2
"""Share of subnet batches in phase 1, rho_1 = 2 : 8."""


@dataclass(frozen=True)
class ProgressiveSchedule:
    """The three phases; lengths in epochs (Table 7: 5 + 15 + {5, 8, 12, 15} for d = 16, 8, 4, 2).

    The ends E_1, E_2, E of the phases are cumulative.  Epochs are counted from 1; phase 1 is 1..E_1.
    """

    phases: tuple[int, int, int]
    last: float = 1.0
    """p in phase 3; 1 in the paper."""

    @property
    def epochs(self) -> int:
        """E, all epochs."""
        return sum(self.phases)

    def phase(self, epoch: int) -> int:
        """1, 2 or 3 for an epoch in 1..E.

        Raises:
            ValueError: an epoch outside 1..E.
        """
        if not 1 <= epoch <= self.epochs:
            raise ValueError(f"epoch {epoch} is outside 1..{self.epochs}")
        first, second, _ = self.phases
        return 1 if epoch <= first else 2 if epoch <= first + second else 3

    def subnet_probability(self, epoch: int, validation: Sequence[Validation] = ()) -> float:
        """p(subnet): 0.2, then 0.2 + 0.8 (ep - E_1) / (E_2 - E_1) (Eq. 5), then `last`."""
        phase = self.phase(epoch)
        if phase == 2:
            return min(P_START + (1 - P_START) * (epoch - self.phases[0]) / self.phases[1], 1.0)
        return P_START if phase == 1 else self.last


@dataclass(frozen=True)
class ReorderedSchedule:
    """The probabilities of three phases in another order of their epochs: as many subnet batches, earlier or later.

    Attributes:
        phased: the schedule whose probabilities are taken.
        order: the epoch of ``phased``, 1..E, whose probability each epoch takes; each occurs once.
    """

    phased: ProgressiveSchedule
    order: tuple[int, ...]

    @classmethod
    def reversed(cls, phased: ProgressiveSchedule) -> ReorderedSchedule:
        """From the last epoch to the first."""
        return cls(phased, tuple(range(phased.epochs, 0, -1)))

    @classmethod
    def shuffled(cls, phased: ProgressiveSchedule, seed: int) -> ReorderedSchedule:
        """In a random order, which is a function of the seed."""
        order = np.random.Generator(np.random.Philox(key=seed)).permutation(phased.epochs) + 1
        return cls(phased, tuple(order.tolist()))

    @property
    def epochs(self) -> int:
        """E, all epochs."""
        return self.phased.epochs

    def subnet_probability(self, epoch: int, validation: Sequence[Validation] = ()) -> float:
        """p of the epoch that takes this place.

        Raises:
            ValueError: an epoch outside 1..E.
        """
        if not 1 <= epoch <= self.epochs:
            raise ValueError(f"epoch {epoch} is outside 1..{self.epochs}")
        return self.phased.subnet_probability(self.order[epoch - 1])


@dataclass(frozen=True)
class FixedRatioSchedule:
    """The same p(subnet) at every epoch (Fig. 2a); p = 0 is plain training of the full network.

    Raises:
        ValueError: a ratio outside 0..1.
    """

    epochs: int
    ratio: float

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise ValueError(f"p(subnet) = {self.ratio} is outside 0..1")

    def subnet_probability(self, epoch: int, validation: Sequence[Validation] = ()) -> float:
        """p at every epoch."""
        return self.ratio


@dataclass(frozen=True)
class AutomaticSchedule:
    """Three phases whose ends are found from the validation losses; not in the paper, which asks for it (Sec. 5).

    Phase 1 (p = 0.2) ends when ``patience`` epochs in a row each bring the subnet's loss less than ``tolerance`` below
    its best, relative to it.  Phase 2 adds ``step`` to p after each epoch that leaves the full network's loss within
    ``tolerance`` of its best, and holds p where it does not.  Phase 3 (p = 1) is what is left.

    Attributes:
        epochs: E.
        step: 0.8 / 15 rises as fast as the paper's phase 2.
    """

    epochs: int
    step: float = (1 - P_START) / 15
    tolerance: float = 0.01
    patience: int = 2

    def subnet_probability(self, epoch: int, validation: Sequence[Validation] = ()) -> float:
        """p of an epoch, from the losses after each epoch before it.

        Raises:
            ValueError: not one pair of losses for each epoch before.
        """
        if len(validation) != epoch - 1:
            raise ValueError(f"epoch {epoch} needs the validation losses of {epoch - 1} epochs, there are "
                             f"{len(validation)}")
        p, ramp = P_START, False
        best_subnet = best_full = float("inf")
        idle = 0
        for subnet, full in validation:
            idle = 0 if subnet < best_subnet * (1 - self.tolerance) else idle + 1
            best_subnet, best_full = min(best_subnet, subnet), min(best_full, full)
            if ramp and full <= best_full * (1 + self.tolerance):
                p = min(p + self.step, 1.0)
            ramp = ramp or idle >= self.patience
        return p


Schedule = ProgressiveSchedule | ReorderedSchedule | FixedRatioSchedule | AutomaticSchedule
