"""Inputs of a table or a figure.  Each declares them beside its builder, where the workflow reads them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from varient.ablations import arms_of
from varient.config import ExperimentConfig
from varient.paper import PAPER_DEPTHS


@dataclass(frozen=True)
class Needs:
    """Files of an experiment that a table or figure is made from.

    Attributes:
        score, profile: systems whose score and profile records are needed.
        samples: systems whose images are needed.
        curves: networks whose training curves are needed.
        reconstruction: whether the record of reconstructed real images is needed.
    """

    score: tuple[str, ...] = ()
    profile: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()
    curves: tuple[str, ...] = ()
    reconstruction: bool = False


def needs(*, score: Iterable[object] = (), profile: Iterable[object] = (), samples: Iterable[object] = (),
          curves: Iterable[object] = (), reconstruction: bool = False) -> Needs:
    """Needs from ids or their texts, without duplicates."""
    return Needs(_once(score), _once(profile), _once(samples), _once(curves), reconstruction)


def _once(names: Iterable[object]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(str, names)))


def shown_depths(config: ExperimentConfig) -> list[int]:
    """Depths of the experiment that correspond to the paper's subnets, in its order; without any, all depths from deep
    to shallow."""
    found = [depth for paper_depth in PAPER_DEPTHS if (depth := config.counterpart(paper_depth))]
    return found or sorted(config.supernet.depths, reverse=True)


def nothing(config: ExperimentConfig) -> Needs:
    """No inputs, for tables and figures that follow from the config alone."""
    return Needs()


def arm_systems(config: ExperimentConfig, *comparisons: str) -> list[str]:
    """Systems of some comparisons of the ablations; none where the experiment has no ablations."""
    return [arm.system for arm in arms_of(config, *comparisons)]
