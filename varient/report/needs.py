"""What a table or a figure is made of: each says so beside its builder, and the workflow asks there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from varient.ablations import arms_of
from varient.config import ExperimentConfig
from varient.paper import PAPER_DEPTHS


@dataclass(frozen=True)
class Needs:
    """Files of an experiment.

    Attributes:
        score, profile: systems whose records are shown.
        samples: systems whose images are.
        curves: networks whose trainings are.
        reconstruction: whether the record of rebuilt real images is.
    """

    score: tuple[str, ...] = ()
    profile: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()
    curves: tuple[str, ...] = ()
    reconstruction: bool = False


def needs(*, score: Iterable[object] = (), profile: Iterable[object] = (), samples: Iterable[object] = (),
          curves: Iterable[object] = (), reconstruction: bool = False) -> Needs:
    """Needs from ids or their texts, each taken once."""
    return Needs(_once(score), _once(profile), _once(samples), _once(curves), reconstruction)


def _once(names: Iterable[object]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(str, names)))


def shown_depths(config: ExperimentConfig) -> list[int]:
    """The depths that stand for the paper's subnets, in its order; all, from deep to shallow, if none does."""
    found = [depth for paper_depth in PAPER_DEPTHS if (depth := config.counterpart(paper_depth))]
    return found or sorted(config.supernet.depths, reverse=True)


def nothing(config: ExperimentConfig) -> Needs:
    """Of what is made from the config and arithmetic alone."""
    return Needs()


def arm_systems(config: ExperimentConfig, *comparisons: str) -> list[str]:
    """Systems of some comparisons of the ablations; none where the experiment has no ablations."""
    return [arm.system for arm in arms_of(config, *comparisons)]
