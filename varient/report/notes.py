"""The notes above a table: how to read it, and which records are missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd

from varient.ablations import THREE_PHASES
from varient.config import ExperimentConfig
from varient.cost.roofline import PAPER_BATCH_SIZE, PAPER_DEVICE
from varient.disturbance import disturbances, speedup_disturbances
from varient.paper import TITLE
from varient.paper_size import UNKNOWN_WEIGHTS, is_paper_size, marks, on_cpu, warnings
from varient.records import Record
from varient.report.cells import ABSENT, ARITHMETIC, MARKS, PREDICTED
from varient.report.fidelity_columns import fidelity_notes
from varient.report.needs import Needs
from varient.report.table2 import CPU_BATCH
from varient.report.table3 import TABLE3_NOTE
from varient.results import Results
from varient.systems.ids import base_system

_IMAGES = {"train": "training", "holdout": "held-out"}
_REDRAWS = ("± is half the width of a 95 % interval over redraws of the scored images, with the reference fixed; "
            "another training would change the values further.")
_REDRAWS_OF_REAL = "The ± of recall is over redraws of the real images instead."
_LOSSES = ("Losses are in nats per token: the cross-entropy of {images} held-out images' tokens, teacher-forced, "
           "without dropped labels or stochastic depth; a subnet's is under the layers that it runs, a full network's "
           "under all.")
_TRAININGS = ("± is half the width of a 95 % interval (Student's t) of the mean over trainings of the supernet that "
              "differ only in their seed; all start from one base network.")


def table_notes(number: int, config: ExperimentConfig, results: Results, frame: pd.DataFrame,
                wanted: Needs) -> list[str]:
    """What the table is and how to read it, and which records it lacks."""
    title, marked = f"Table {number} of {TITLE}. Each cell: ours / the paper's.", _marked(config, results)
    if number == 3:
        return [f"{title} {TABLE3_NOTE}", *marked]
    if number in (6, 7):
        return [f"{title} Ours comes from the config of {config.name}.", *marked]
    notes = [f"{title} Ours ({config.name}): {ABSENT} means no value, {MARKS[ARITHMETIC]} exact from shapes, "
             f"{MARKS[PREDICTED]} predicted by the cost model; unmarked values are measured.", *marked,
             " ".join(_reading(number, config, results, frame))]
    there: dict[str, tuple[tuple[str, ...], Mapping[str, Record]]] = {
        "score": (wanted.score, results.scores), "profile": (wanted.profile, results.profiles),
        "held-out loss": (wanted.loss, results.losses), "fidelity": (wanted.fidelity, results.fidelities)}
    absent = {kind: [name for name in names if name not in records] for kind, (names, records) in there.items()}
    gaps = [f"{kind} of {', '.join(names)}" for kind, names in absent.items() if names]
    gaps += ["reconstructions"] if wanted.reconstruction and not results.reconstruction else []
    notes += [f"No record: {'; '.join(gaps)}."] if gaps else []
    return [*filter(None, notes), *(f"Left out: {remark}." for remark in results.remarks)]


def _marked(config: ExperimentConfig, results: Results) -> list[str]:
    """What has to be said of the experiment and its records; unknown weights beside the mark of their values."""
    said = marks(config, results)
    if warned := warnings(config, results):
        said["Warnings of the records"] = warned
    signs = {UNKNOWN_WEIGHTS.capitalize(): f"{MARKS[UNKNOWN_WEIGHTS]} "}
    return [f"{signs.get(title, '')}{title}: {text}." for title, text in said.items()]


def _reading(number: int, config: ExperimentConfig, results: Results, frame: pd.DataFrame) -> Iterator[str]:
    """How to read what this table really shows; rows that are not there are not mentioned."""
    if number == 1:
        yield "Subnets are not trained."
        if "rebuilt_fid" in frame:
            yield ("The ranking of the zones depends on this layout of scales, not on depth alone: compare it with "
                   "what the scales hold. That is shown by the last rows, for the "
                   f"{_IMAGES[config.data.reference_split]} images, which are also the FID reference.")
    if number == 2:
        yield from _settings(config, results)
        yield from _times(results, frame)
        if "fid_test" in frame:
            yield (f"FID, precision and recall compare with the {_IMAGES[config.data.reference_split]} images; FID to "
                   "test set with images that have no part in anything else. The real images scored are that test set.")
        yield ("FIDs of two feature networks are on different scales: compare FID over VAR's. Token-layers, VAR's over "
               "own, is the speedup of a subnet where time is proportional to the tokens times layers that it runs. A "
               "speedup in brackets is the ratio of the paper's latencies, where it prints none.")
        if "fid_cross" in frame:
            yield (f"FID, cross-fitted: mean of {config.evaluation.halves} FIDs, each against a random half of the "
                   "training images on features of a classifier that learned from the other half alone.")
        yield ("Judge accuracy is the share of samples that a second classifier, used for nothing else, assigns to the "
               "requested class. Numbers published elsewhere are listed with their sources in "
               "varient/paper/published.yaml.")
        yield from fidelity_notes(results)
    if number == 4 and (frame["training"] != THREE_PHASES).any():
        yield ("The rows after the paper's four are other ways of training, with the same number of epochs unless they "
               "state another.")
    if number == 5:
        yield "The paper has d = 16."
    if number == 8:
        yield ("Each row is one supernet, trained with a single N and sampled with every N. Our row d = 30 is the "
               "network before any of these trainings; the paper does not say which network its row is.")
    if any(column.endswith("_loss") for column in frame):
        yield from loss_notes(results)
    if any(column.endswith("_pm") for column in frame):
        yield _TRAININGS if number == 5 else _REDRAWS
    if "recall_pm" in frame:
        yield _REDRAWS_OF_REAL


def _times(results: Results, frame: pd.DataFrame) -> Iterator[str]:
    """What speedups are relative to, and which times are not those of an idle machine."""
    if any(record.reference for record in results.profiles.values()):
        yield "A speedup is the median over turns of the full network's time over the system's."
    if "cpu_speedup" in frame:
        record = next(iter(on_cpu(results.benchmarks, CPU_BATCH).values()))
        yield (f"The columns CPU are measured on {record.provenance.device} ({record.provenance.threads} threads): "
               f"networks of the authors' size with random weights in float32, batch {CPU_BATCH}, reference cache, "
               "which then keeps 8 bytes for each pair of a key and a value.")
    shown = [*results.profiles.values(), *(record for record in on_cpu(results.benchmarks, CPU_BATCH).values()
                                           if "cpu_speedup" in frame)]
    signs = {record.system: found for record in shown
             if (found := dict.fromkeys((*disturbances(record), *speedup_disturbances(record))))}
    if signs:
        yield "The machine was not idle, or not steady, while times marked as disturbed were measured ({}).".format(
            "; ".join(f"{name}: {', '.join(found)}" for name, found in signs.items()))


def loss_notes(results: Results) -> Iterator[str]:
    """How to read losses, where there are any."""
    if results.held_out:
        yield _LOSSES.format(images=max(record.num_images for record in results.held_out))


def _settings(config: ExperimentConfig, results: Results) -> Iterator[str]:
    """Under what time and memory were measured, counted and predicted."""
    if record := results.profiles.get(base_system(config)):
        yield (f"Time and memory are measured on {record.provenance.device}, batch {record.batch_size}, "
               f"{record.precision}, {record.cache_policy} cache"
               + ("." if is_paper_size(config) else ": compare ratios with the paper's, not seconds or MiB."))
    if is_paper_size(config):
        yield (f"Values marked {MARKS[ARITHMETIC]} or {MARKS[PREDICTED]} are for the paper's setting: "
               f"{PAPER_DEVICE.upper()}, batch {PAPER_BATCH_SIZE}, float32 weights under fp16 autocast, reference "
               "cache.")
