"""Share of equal tokens between two systems of VAR: the first place where their pictures part.

Archives hold no tokens, so those of some hundred images are drawn again; nothing is decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from varient.config import ExperimentConfig
from varient.generation import label_of
from varient.pyramid import Pyramid
from varient.systems.var import VARSystem, resolve

NUM_IMAGES = 200


@dataclass(frozen=True)
class TokenAgreement:
    """Shares of equal tokens over some images.

    Attributes:
        share: of all tokens.
        sd: its standard error over the images; 0 for a single one.
        by_scale: of each scale 1..K.
        num_images: their number.
    """

    share: float
    sd: float
    by_scale: tuple[float, ...]
    num_images: int

    @classmethod
    def of(cls, idx_NL: np.ndarray, other_NL: np.ndarray, pyramid: Pyramid) -> TokenAgreement:
        """Of the tokens (N, L) of the same images."""
        equal_NL = idx_NL == other_NL
        share_N = equal_NL.mean(axis=1)
        sd = share_N.std(ddof=1) / len(share_N) ** 0.5 if len(share_N) > 1 else 0.0
        by_scale = [equal_NL[:, pyramid.begin(k):pyramid.end(k)].mean() for k in pyramid.scales]
        return cls(float(share_N.mean()), float(sd), tuple(map(float, by_scale)), len(idx_NL))


def drawn_tokens(config: ExperimentConfig, system: str, run_dir: Path, indices: Sequence[int]) -> np.ndarray:
    """Tokens (N, L), int64, of some images of a system, as its archives' were drawn: the same seeds and precision.

    Raises:
        ValueError: no system of VAR.
        CheckpointError: weights that are missing or do not fit.
    """
    found = var_system(config, system)
    if found is None:
        raise ValueError(f"system {system!r}: only those of VAR have its tokens")
    sampler = found.load(run_dir, config.sampling.precision)
    labels = [label_of(index, config.data.num_classes) for index in indices]
    size = config.sampling.batch_size
    return np.concatenate([sampler.tokens(labels[at:at + size], indices[at:at + size], config.seed).cpu().numpy()
                           for at in range(0, len(indices), size)])


def var_system(config: ExperimentConfig, name: str) -> VARSystem | None:
    """The system of VAR with this id; None for another family's.

    Raises:
        ValueError: an id of VAR that the experiment does not have.
    """
    return resolve(name, config, None)
