"""Inputs of a table or a figure.  Each declares them beside its builder, where the workflow reads them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from varient.ablations import arms, arms_of
from varient.config import ExperimentConfig
from varient.paper import PAPER_DEPTHS
from varient.systems.ids import VarId


@dataclass(frozen=True)
class Needs:
    """Files of an experiment that a table or figure is made from.

    Attributes:
        score, profile: systems whose score and profile records are needed.
        loss: systems whose losses on held-out images are needed.
        samples: systems whose images are needed.
        curves: networks whose training curves are needed.
        reconstruction: whether the record of reconstructed real images is needed.
        fidelity: systems whose pictures are compared with the full network's.
        sweep: systems whose sweeps over batch sizes are needed; what needs any is not made with everything else.
    """

    score: tuple[str, ...] = ()
    profile: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()
    curves: tuple[str, ...] = ()
    reconstruction: bool = False
    loss: tuple[str, ...] = ()
    fidelity: tuple[str, ...] = ()
    sweep: tuple[str, ...] = ()


def needs(*, score: Iterable[object] = (), profile: Iterable[object] = (), samples: Iterable[object] = (),
          curves: Iterable[object] = (), reconstruction: bool = False, loss: Iterable[object] = (),
          fidelity: Iterable[object] = (), sweep: Iterable[object] = ()) -> Needs:
    """Needs from ids or their texts, without duplicates."""
    return Needs(_once(score), _once(profile), _once(samples), _once(curves), reconstruction, _once(loss),
                 _once(fidelity), _once(sweep))


def needs_of_quality(config: ExperimentConfig, systems: Iterable[object]) -> Needs:
    """Scores of some of VAR's systems, and their held-out losses where the experiment shows them."""
    names = _once(systems)
    return Needs(score=names, loss=names if config.shows_held_out_loss else ())


def needs_of_arms(config: ExperimentConfig) -> Needs:
    """All arms of the ablations; nothing where the experiment has none."""
    return needs_of_quality(config, sorted({arm.system for arm in arms(config)}) if config.ablations else ())


def systems_of_var(names: Iterable[object]) -> tuple[str, ...]:
    """Those of some systems that are VAR or its subnets, whose pictures can be compared with the full network's."""
    return tuple(name for name in _once(names) if VarId.parse(name))


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
