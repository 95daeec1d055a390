"""Records made up for the tests, and printed numbers changed for them."""

from __future__ import annotations

from conftest import PUBLISHED, ROOT
from further_arms import FURTHER_DIGITS
from record_factory import score

from varient.claims import Verdict, claims, judge
from varient.config import load_config
from varient.paper.released import RELEASED
from varient.results import Results

DIGITS = FURTHER_DIGITS
FASHION = load_config(ROOT / "workflow/config/fashion.yaml")
IMAGENET = load_config(ROOT / "workflow/config/imagenet256.yaml")
SMOKE = load_config(ROOT / "workflow/config/smoke.yaml")
NOTHING = Results({}, {})
SEEN, REVERSED, PARTLY, NOT_RESOLVED, OPEN = (
    Verdict.SEEN, Verdict.REVERSED, Verdict.PARTLY_REVERSED, Verdict.NOT_RESOLVED, Verdict.OPEN)


def order_of(name, results, config=DIGITS):
    """The judgement of a ranking."""
    return next(judgement for judgement in judge(config, results) if judgement.id == name)


def paper_size_score(system, fid, fid_sd=0.02, **changes):
    """A record as the ImageNet experiment makes it, of weights that the fixture `published` knows."""
    settings = {"protocol": "adm", "num_images": 50_000, "experiment": "imagenet256", "device": "NVIDIA H100"}
    record = score(system, fid, fid_sd, **settings | changes)
    by_network = {file.network: PUBLISHED[name] for name, file in RELEASED.items()}
    made_from = {"settings": IMAGENET.digest(*IMAGENET.sampling.image_sections, "evaluation"),
                 "imported_sha256": by_network, "weights_sha256": {"extractor": by_network["extractor"]}}
    return record.model_copy(update={"reference_sha256": by_network["reference"],
                                     "provenance": record.provenance.model_copy(update=made_from)})


def scores(**fids):
    """Results with a FID for each system; `__` stands for the dash that a keyword cannot have."""
    return Results({(name := key.replace("__", "-")): score(name, fid) for key, fid in fids.items()}, {})


def profiles(*records):
    return Results({}, {record.system: record for record in records}, records)


def rows_instead(monkeypatch, name, change):
    """Change the rows of a file of the paper's data: a function of the list of them."""
    read = claims.paper_rows
    monkeypatch.setattr(claims, "paper_rows", lambda asked: change(read(asked)) if asked == name else read(asked))


def print_instead(monkeypatch, number, row, **changes):
    """Change cells of a table's row, by its index."""
    rows_instead(monkeypatch, f"table{number}", lambda rows: [
        cells | changes if at == row else cells for at, cells in enumerate(rows)])


def write_instead(monkeypatch, claim_id, value, name="claims", column="value"):
    """Change a row of claims.csv, or of another of the files with ids."""
    assert claim_id in [row["id"] for row in claims.paper_rows(name)]
    rows_instead(monkeypatch, name, lambda rows: [
        row | {column: value} if row["id"] == claim_id else row for row in rows])
