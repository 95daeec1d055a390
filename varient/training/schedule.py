"""When to train the subnet instead of the full network: pure functions of the epoch (Sec. 3.3, Algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass

P_START = 0.2
"""Share of subnet batches in phase 1, rho_1 = 2 : 8."""


@dataclass(frozen=True)
class ProgressiveSchedule:
    """The three phases; lengths in epochs (Table 7: 5 + 15 + {5, 8, 12, 15} for d = 16, 8, 4, 2).

    The ends E_1, E_2, E of the phases are cumulative.  Epochs are counted from 1; phase 1 is 1..E_1.
    """

    phases: tuple[int, int, int]

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

    def subnet_probability(self, epoch: int) -> float:
        """p(subnet): 0.2, then 0.2 + 0.8 (ep - E_1) / (E_2 - E_1) (Eq. 5), then 1."""
        phase = self.phase(epoch)
        if phase == 2:
            return min(P_START + (1 - P_START) * (epoch - self.phases[0]) / self.phases[1], 1.0)
        return P_START if phase == 1 else 1.0


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

    def subnet_probability(self, epoch: int) -> float:
        """p at every epoch."""
        return self.ratio


Schedule = ProgressiveSchedule | FixedRatioSchedule
