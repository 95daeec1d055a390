"""What the paper claims: numbers and sentences of its text (claims.csv) and every numeric cell of its tables 1 to 8.

A claim names the quantity that it prints; whether the value is right is asked elsewhere.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.resources import files
from math import isqrt

from varient.ablations import bridge_system, zone_system
from varient.claims.quantity import OUT_OF_MEMORY, Interval, Quantity, parse
from varient.cost.paper_systems import BRIDGE
from varient.cost.roofline import PAPER_BATCH_SIZE
from varient.paper import DEPTH, paper_table, system_id
from varient.paper.published import published
from varient.pyramid import VAR_256
from varient.systems.ids import VarId

LAST_SCALE = VAR_256.num_scales
"""K."""
FULL = str(VarId("var", DEPTH))
"""The pretrained full network."""
SKIP_ALL = "skip"
"""In ids of the paper's systems, the recipe without a bridge zone; `fixed_ratio` names those of a fixed p."""


def fixed_ratio(percent: int) -> str:
    """In ids of the paper's systems, the recipe of a fixed p(subnet): `p10` for p = 0.1."""
    return f"p{percent}"


def ratio_of(system: VarId) -> int | None:
    """p(subnet) in percent where a system of the paper is trained with a fixed one."""
    recipe = system.recipe or ""
    return int(recipe[1:]) if recipe[:1] == "p" and recipe[1:].isdecimal() else None


@dataclass(frozen=True)
class Claim:
    """A printed number, or several that belong together.

    Attributes:
        id: unique.
        where: "abstract", "section 4.2", "Table 3".
        claim: in words.
        printed: as printed.
        quantity: what it denotes.
        reading: how we read it, where that is a choice.
    """

    id: str
    where: str
    claim: str
    printed: str
    quantity: Quantity
    reading: str = ""

    @property
    def is_cell(self) -> bool:
        """Whether it stands in a table."""
        return self.where.startswith("Table")

    @cached_property
    def values(self) -> tuple[Interval, ...]:
        """What it may stand for."""
        return parse(self.printed, self.quantity.kind)


def all_claims() -> list[Claim]:
    """Text first, then tables, in the paper's order."""
    return [*text_claims(), *table_claims()]


# --- the text -------------------------------------------------------------------------------------------------------

_KV_READING = "\"Memory\" read as the KV cache."
NO_DEPTH = "The text names no d; read as d = 16."
"""Section 3.3.1 and Fig. 2 say which p, not which subnet."""
_RATIOS = f"{NO_DEPTH} Read as said of all ratios that Fig. 2c shows."
_ENDS_OF_RATIOS = ("variant-d16-p10-full", "variant-d16-p100-full")
TRAINED_FULL = "variant-full"
"""Table 8's row d = 30 and "the full network" of Sec. 6.3: a full network after training, as its FID is not VAR-d30's;
of which supernet is not said."""

READINGS: dict[str, tuple[Quantity, str]] = {
    "abs-d30-fid": (Quantity.of("fid", FULL), ""),
    "abs-d16-fid": (Quantity.of("fid", "variant-d16"), ""),
    "abs-d8-fid": (Quantity.of("fid", "variant-d8"), ""),
    "abs-d2-fid": (Quantity.of("fid", "variant-d2"), ""),
    "abs-mem": (Quantity.of("kv_reduction", "variant-d16", "variant-d8"), _KV_READING),
    "abs-d2-mem": (Quantity.of("kv_reduction", "variant-d2"), _KV_READING),
    "abs-d2-speed": (Quantity.of("speedup", "variant-d2"), ""),
    "intro-early": (Quantity.of("fid_increase", "free-d16-r1to3"), "Early scales read as r1-r3, as in Table 1."),
    "intro-late": (Quantity.of("fid_increase", "free-d16"), "Late scales read as r7-r10, as in Table 1."),
    "intro-d16-speed": (Quantity.of("speedup", "variant-d16"), ""),
    "intro-d16-mem": (Quantity.of("kv_reduction", "variant-d16"), _KV_READING),
    "intro-full-fid": (Quantity.of("fid", "variant-d16-full"), "Read as the full network of the same supernet."),
    "intro-d16-fid": (Quantity.of("fid", "variant-d16"), ""),
    "intro-d8-speed": (Quantity.of("speedup", "variant-d8"), ""),
    "intro-d2-speed": (Quantity.of("speedup", "variant-d2"), ""),
    "intro-d8-mem": (Quantity.of("kv_reduction", "variant-d8"), _KV_READING),
    "intro-d2-mem": (Quantity.of("kv_reduction", "variant-d2"), _KV_READING),
    "intro-d8-fid": (Quantity.of("fid", "variant-d8"), ""),
    "intro-d2-fid": (Quantity.of("fid", "variant-d2"), ""),
    "3.2.1-early": (Quantity.of("fid_increase", "free-d16-r1to3"), ""),
    "3.2.1-late-fid": (Quantity.of("fid_increase", "free-d16"), ""),
    "3.2.1-flops": (Quantity.of("layer_reduction", "variant-d16"), ""),
    "3.2.1-late": (Quantity.of("late_latency_share", FULL), ""),
    "3.2.2-nested": (Quantity.of("nested", "variant-d8", "variant-d16"),
                     "Depths as Table 4 labels them: d = 8 is 25 %, d = 16 is 50 % of 30."),
    "3.3.1-p01-full": (Quantity.of("fid", "variant-d16-p10-full"), NO_DEPTH),
    "3.3.1-p01-sub": (Quantity.of("fid", "variant-d16-p10"), NO_DEPTH),
    "3.3.1-p10-sub": (Quantity.of("fid", "variant-d16-p100"), NO_DEPTH),
    "3.3.1-p10-full": (Quantity.of("fid", "variant-d16-p100-full"), NO_DEPTH),
    "3.3.1-p10-loss8": (Quantity.of("loss", "variant-d16-p100-full", "epoch 8"), NO_DEPTH),
    "3.3.1-p10-loss": (Quantity.of("loss", "variant-d16-p100-full"), NO_DEPTH),
    "3.3.1-bridge-tokens": (Quantity.of("bridge_tokens", FULL), ""),
    "3.3.1-p01-loss": (Quantity.of("loss", "variant-d16-p10"), NO_DEPTH),
    "3.3.1-early-fid": (Quantity.of("early_fid", *_ENDS_OF_RATIOS), _RATIOS),
    "3.3.1-late-fid": (Quantity.of("late_fid", *_ENDS_OF_RATIOS), _RATIOS),
    "3.3.2-gradient": (Quantity.of("gradient_support", "variant-d16"), "\"Gradient support\" read as a gradient of the "
                       "flexible zone's loss, \"completely\" as for no full-only layer; d = 16 is the text's example."),
    "4.2-mem": (Quantity.of("kv_reduction", "variant-d16", "variant-d8"), _KV_READING),
    "4.2-d2-speed": (Quantity.of("speedup", "variant-d2"), ""),
    "4.2-d2-mem": (Quantity.of("kv_reduction", "variant-d2"), _KV_READING),
    "4.2-d8-fid": (Quantity.of("fid", "variant-d8"), ""),
    "4.2-d2-fid": (Quantity.of("fid", "variant-d2"), ""),
    "4.2-d4-fid": (Quantity.of("fid", "variant-d4"), ""),
    "4.2-d4-kv": (Quantity.of("kv_mb", "variant-d4"), ""),
    "4.2-code-kv": (Quantity.of("kv_mb", "code-n6"), ""),
    "4.2-d2-kv": (Quantity.of("kv_mb", "variant-d2"), ""),
    "4.3-share": (Quantity.of("kv_share", FULL), ""),
    "4.3-d16": (Quantity.of("kv_reduction", "variant-d16"), ""),
    "4.3-d8": (Quantity.of("kv_reduction", "variant-d8"), ""),
    "4.3-d2": (Quantity.of("kv_reduction", "variant-d2"), ""),
    "4.4.1-d2-collapse": (Quantity.of("fid_limit", "free-d2"), ""),
    "4.4.1-d4-collapse": (Quantity.of("fid_limit", "free-d4"), ""),
    "4.4.1-d4-gain": (Quantity.of("fid_gain", "free-d4", "variant-d4"), ""),
    "4.4.1-d2-gain": (Quantity.of("fid_gain", "free-d2", "variant-d2"), ""),
    "4.5.2-mem": (Quantity.of("kv_growth", "variant-d16", "variant-d16-n7"), _KV_READING),
    "4.5.2-n7": (Quantity.of("fid_difference", "variant-d16", "variant-d16-n7"), ""),
    "4.5.2-n8": (Quantity.of("fid_difference", "variant-d16-n7", "variant-d16-n8"), ""),
    "4.5.2-n9": (Quantity.of("fid_difference", "variant-d16-n8", "variant-d16-n9"), ""),
    "4.5.2-n10": (Quantity.of("fid_difference", "variant-d16-n9", "variant-d16-full"), ""),
    "4.5.3-fid": (Quantity.of("fid", "variant-d16-n7"), ""),
    "4.5.3-mem": (Quantity.of("kv_reduction", "variant-d16-n7"), _KV_READING),
    "6.3-full-fid": (Quantity.of("fid", TRAINED_FULL), ""),
    "6.3-delta": (Quantity.of("fid_difference", "variant-d16-n7", TRAINED_FULL), ""),
    "6.3-rec-fid": (Quantity.of("fid", "variant-d16-n7"), ""),
    "6.3-rec-quality": (Quantity.of("fid_degradation", "variant-d16-n7", TRAINED_FULL),
                        "\"Quality degradation\" read as the relative increase of FID."),
    "6.3-rec-mem": (Quantity.of("kv_reduction", "variant-d16-n7"), _KV_READING),
    "6.3-rec-speed": (Quantity.of("speedup", "variant-d16-n7"), ""),
}
"""What each row of claims.csv denotes, and how it is read where that is a choice; rankings are `stated_rankings`."""
RANKING = "ranking"
"""The value of a sentence that prints no number but says which system is better."""

_FROM_TO = re.compile(r"(\d[\d.]*[A-Z]+) to (\d[\d.]*[A-Z]+)")
_ENDS = {"6.3-rec-mem": (Quantity.of("kv_mb", FULL), Quantity.of("kv_mb", "variant-d16-n7"))}
"""What "... to ..." in a claim's words denotes, where these numbers are claims too."""


def stated_rankings() -> dict[str, tuple[str, str]]:
    """Sentences of the text about which system is better: id -> where, and the claim."""
    return {row["id"]: (row["where"], row["claim"]) for row in _text_rows() if row["value"] == RANKING}


def text_claims() -> list[Claim]:
    """The rows of claims.csv but for rankings; one that nobody has read yet is kept, and stays open."""
    found = []
    for row in (row for row in _text_rows() if row["value"] != RANKING):
        quantity, reading = READINGS.get(row["id"], (Quantity.of("unread", row["id"]), ""))
        found.append(Claim(row["id"], row["where"], row["claim"], row["value"], quantity, reading))
        if row["id"] in _ENDS and (ends := _FROM_TO.search(row["claim"])):
            for name, printed, end in zip(("from", "to"), ends.groups(), _ENDS[row["id"]], strict=True):
                found.append(Claim(f"{row['id']}-{name}", row["where"], row["claim"], printed, end, _KV_READING))
    return found


def _text_rows() -> list[dict[str, str]]:
    with (files("varient") / "paper" / "claims.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --- the tables -----------------------------------------------------------------------------------------------------

_TABLE2 = {"steps": "steps", "speedup": "speedup", "latency_s": "latency_s", "memory_mb": "memory_mb",
           "kv_cache_mb": "kv_mb", "params": "parameters", "fid": "fid", "is": "is", "precision": "precision",
           "recall": "recall"}
_TABLE3 = {"kv_cache_mb": "kv_mb", "params_mb": "params_mb", "total_mb": "memory_mb"}
_TABLE4: dict[str, Callable[[int], str]] = {
    "training_free_subnet_fid": lambda depth: str(VarId("free", depth)), "training_free_full_fid": lambda depth: FULL,
    "joint_subnet_fid": lambda depth: str(VarId("variant", depth)),
    "joint_full_fid": lambda depth: str(VarId("variant", depth, full=True))}
_TABLE5 = {f"skip r1-r{LAST_SCALE}": VarId("variant", 16, SKIP_ALL),
           f"skip r{BRIDGE + 1}-r{LAST_SCALE}": VarId("variant", 16)}
_TABLE6 = {"batch_size": "batch_size", "hardware": "gpus", "bridge_zone": "bridge_zone"}


def table_claims() -> list[Claim]:
    """Every cell of tables 1 to 8 that is not a label; an OOM row of Table 3 is one claim, about its total."""
    return [claim for number, read in _READERS.items() for row in paper_table(number).to_dict("records")
            for claim in read(row)]


def window(depth: int, first: int, last: int) -> str:
    """Id of the untrained subnet at the scales first..last; with the bridge in front it is `free-d16`."""
    return str(zone_system(depth, first, last, bridge=BRIDGE, num_scales=LAST_SCALE))


def subnet(depth: int, bridge: int) -> str:
    """Id of a trained subnet with N bridge scales; with all scales in the bridge it is the full network."""
    return str(bridge_system(depth, bridge, bridge=BRIDGE, num_scales=LAST_SCALE))


def _table1(row: dict[str, str]) -> Iterator[Claim]:
    scales = re.fullmatch(r"r(\d+)-r(\d+)", row["subnet_scales"])
    system = window(int(row["subnet_depth"]), int(scales[1]), int(scales[2])) if scales else FULL
    yield Claim(f"table1-{row['strategy'].split()[0].lower()}", "Table 1",
                f"FID, subnet untrained at {row['subnet_scales']}", row["fid"], Quantity.of("fid", system))


def _table2(row: dict[str, str]) -> Iterator[Claim]:
    system = system_id(row["method"])
    for column, name in _TABLE2.items():
        if row[column]:
            quantity = Quantity.of(name, system)
            reading = _llamagen_reading(row["fid"]) if (system, column) == ("llamagen-xxl", "steps") else ""
            yield Claim(f"table2-{system}-{column}", "Table 2", f"{row['method']}: {quantity.kind.label}",
                        row[column], quantity, reading)


def _llamagen_reading(fid: str) -> str:
    """Which LlamaGen-XXL the row is: of its authors' two models, the one with the row's FID draws 384 x 384 pixels."""
    source = published("llamagen-xxl")
    side, tokens = source.protocol.settings["image_size"], source.protocol.settings["tokens"]
    pixels = side // isqrt(tokens)
    whose = f", whose FID of {fid} is printed" if any(
        number.protocol == "authors" and number.fid == fid for number in source.numbers) else ""
    return f"Read as the {side} x {side} model{whose}; at 256 x 256 it would be {(256 // pixels) ** 2} steps."


def _table3(row: dict[str, str]) -> Iterator[Claim]:
    for column, name in _TABLE3.items():
        if row[column] == OUT_OF_MEMORY and name != "memory_mb":
            continue
        quantity = Quantity.of(name, row["method"].lower(), batch=int(row["batch_size"]))
        in_table2 = name == "memory_mb" and quantity.batch == PAPER_BATCH_SIZE
        yield Claim(f"table3-b{row['batch_size']}-{row['method'].lower()}-{column}", "Table 3",
                    f"{row['method']}, batch {row['batch_size']}: {quantity.kind.label}", row[column], quantity,
                    "The total at batch 64 read as Table 2's \"Mem\": the same GPU and batch." if in_table2 else "")


def _table4(row: dict[str, str]) -> Iterator[Claim]:
    depth = row["subnet_depth"]
    for column, system in _TABLE4.items():
        yield Claim(f"table4-d{depth}-{column}", "Table 4",
                    f"d = {depth}: FID, {column.removesuffix('_fid').replace('_', ' ')}", row[column],
                    Quantity.of("fid", system(int(depth))))


def _table5(row: dict[str, str]) -> Iterator[Claim]:
    for column in list(row)[1:]:
        network, score = column.split("_")
        system = str(replace(_TABLE5[row["design"]], full=network == "full"))
        yield Claim(f"table5-{row['design'].split()[-1]}-{column}", "Table 5",
                    f"{row['design']}: {Quantity.of(score).kind.label} of the {network} network", row[column],
                    Quantity.of(score, system))


def _table6(row: dict[str, str]) -> Iterator[Claim]:
    name = row["configuration"]
    yield Claim(f"table6-{name}", "Table 6", name.replace("_", " "), row["value"],
                Quantity.of(_TABLE6.get(name, "setting"), name))


def _table7(row: dict[str, str]) -> Iterator[Claim]:
    for column in list(row)[1:]:
        phase = column.removesuffix("_epochs")
        yield Claim(f"table7-d{row['depth']}-{phase}", "Table 7", f"d = {row['depth']}: epochs, {phase}", row[column],
                    Quantity.of("epochs", f"d{row['depth']}", phase))


def _table8(row: dict[str, str]) -> Iterator[Claim]:
    depth = row["depth"]
    for column in list(row)[1:]:
        bridge = int(column.removeprefix("N"))
        full = int(depth) == DEPTH
        no_flexible_zone = bridge == LAST_SCALE and not full
        yield Claim(f"table8-d{depth}-n{bridge}", "Table 8", f"FID at d = {depth}, N = {bridge}", row[column],
                    Quantity.of("fid", TRAINED_FULL if full else subnet(int(depth), bridge)),
                    f"With N = {bridge} no flexible zone is left: this is the full network of the supernet of "
                    f"d = {depth}." if no_flexible_zone else "")


_READERS: dict[int, Callable[[dict[str, str]], Iterator[Claim]]] = {
    1: _table1, 2: _table2, 3: _table3, 4: _table4, 5: _table5, 6: _table6, 7: _table7, 8: _table8}
