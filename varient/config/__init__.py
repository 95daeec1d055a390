"""The experiment config: one validated, frozen tree of settings.  Imports neither torch nor pandas.

A config holds everything that defines the experiment (sizes, depths, epochs, seeds, guidance); threads, partitions and
devices belong to the environment or the workflow profile.  Weights are either trained or read from a file of the user.
"""

from varient.config.data import (
    MOST_CACHED_CODES,
    NO_AUGMENTATION,
    Augmentation,
    DataConfig,
    FashionFile,
    RandAugment,
    Split,
)
from varient.config.experiment import ExperimentConfig, error_lines, load_config, parse_config
from varient.config.kinds import (
    CachePolicy,
    Count,
    Decay,
    Depth,
    Epochs,
    Positive,
    Precision,
    Rate,
    Real,
    Share,
    Strict,
    UserFile,
    Weight,
    Whole,
)
from varient.config.measuring import FRECHET_FEATURES, PROFILED, REHEARSAL, EvaluationConfig, SamplingConfig
from varient.config.training import (
    AblationConfig,
    BaseTraining,
    DepthArms,
    Optimizer,
    Recipe,
    SupernetTraining,
    TokenizerSpec,
    TokenizerTraining,
    TransformerSpec,
)
from varient.yaml_file import ConfigError

__all__ = [
    "FRECHET_FEATURES",
    "MOST_CACHED_CODES",
    "NO_AUGMENTATION",
    "PROFILED",
    "REHEARSAL",
    "AblationConfig",
    "Augmentation",
    "BaseTraining",
    "CachePolicy",
    "ConfigError",
    "Count",
    "DataConfig",
    "Decay",
    "Depth",
    "DepthArms",
    "Epochs",
    "EvaluationConfig",
    "ExperimentConfig",
    "FashionFile",
    "Optimizer",
    "Positive",
    "Precision",
    "RandAugment",
    "Rate",
    "Real",
    "Recipe",
    "SamplingConfig",
    "Share",
    "Split",
    "Strict",
    "SupernetTraining",
    "TokenizerSpec",
    "TokenizerTraining",
    "TransformerSpec",
    "UserFile",
    "Weight",
    "Whole",
    "error_lines",
    "load_config",
    "parse_config",
]
