"""The weights that a training ends with: kept under a second name, so that they are not trained twice."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from functools import cached_property
from glob import escape
from pathlib import Path

from varient.files import link_or_copy, remove_unfinished
from varient.models.checkpoint import CheckpointError, check_weights
from varient.sources import sources_digest
from varient.training.state import remove_training_states, states_folder

log = logging.getLogger(__name__)

_KEPT = "result-"


@dataclass(frozen=True)
class Result:
    """The weights that a training ends with, and their second name in the folder of the training.

    Snakemake removes the output of a job that it did not see end, also that of a training which outlived it.

    Attributes:
        output: where the weights are asked for.
        identity: digest of what they depend on besides the code; the file's description has it.
        module: module of the loss.
    """

    output: Path
    work_dir: Path
    identity: str
    title: str
    module: str

    @cached_property
    def kept(self) -> Path:
        """The second name.  It depends on all code that a training command may run, so that an output that was removed
        because code changed is trained again."""
        made_by = f"{self.identity}:{sources_digest('varient.cli.stages', self.module)}"
        return self.work_dir / f"{_KEPT}{hashlib.sha256(made_by.encode()).hexdigest()[:12]}.safetensors"

    def is_there(self) -> bool:
        """Whether the output exists or could be made from its second name; if so, the states are removed."""
        remove_unfinished(self.output.parent, escape(self.output.stem), escape(self.output.suffix))
        if self._is_whole(self.output):
            log.warning("%s: %s is there already, of the same settings and inputs; delete it, and %s*, to train again",
                        self.title, self.output, self.work_dir / _KEPT)
        elif self._is_whole(self.kept):
            log.warning("%s: has ended before, with %s; %s is a copy of it", self.title, self.kept, self.output)
            link_or_copy(self.kept, self.output)
        else:
            return False
        remove_training_states(states_folder(self.work_dir, self.identity))
        return True

    def keep(self) -> None:
        """Give the output its second name; results of other settings or code are kept no longer."""
        for other in self.work_dir.glob(f"{_KEPT}*.safetensors"):
            other.unlink(missing_ok=True)
        link_or_copy(self.output, self.kept)

    def _is_whole(self, path: Path) -> bool:
        try:
            return path.exists() and check_weights(path).get("settings") == self.identity
        except CheckpointError as error:
            log.warning("%s; it is made anew", error)
            return False
