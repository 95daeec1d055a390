"""An experiment whose protocol is CMMD has no FID: its tables, figures and verdicts are made, and show none."""

import csv

import pytest
from conftest import ROOT
from record_factory import fidelity, profile, score

from varient.claims import judge, write_judgements
from varient.config import ExperimentConfig, load_config
from varient.report.ablations import write_ablations
from varient.report.figures import FIGURES, figure_needs, render
from varient.report.rivals import write_rivals
from varient.report.tables import TABLES
from varient.report.tables import render as render_table
from varient.results import Results


def _of_cmmd(name):
    settings = load_config(ROOT / f"workflow/config/{name}.yaml").model_dump(mode="json")
    settings["evaluation"] = {"protocol": "cmmd", "inception_weights": "clip.safetensors", "reference": "real.npz"}
    return ExperimentConfig.model_validate(settings)


CONFIGS = {name: _of_cmmd(name) for name in ("smoke", "imagenet256")}


def _results(config, wanted):
    common = {"experiment": config.name, "device": "CPU"}
    scores = {name: score(name, None, None, protocol="cmmd", fid_bias=None, cmmd=0.5 + at / 8, cmmd_sd=0.01, **common)
              for at, name in enumerate(sorted({*wanted.score, f"real-{config.data.floor_split}"}))}
    profiles = {name: profile(name, [1 + at / 4], **common) for at, name in enumerate(sorted(wanted.profile))}
    compared = tuple(fidelity(name, name, experiment=config.name, fid=None, fid_sd=None)
                     for name in sorted(getattr(wanted, "fidelity", ())))
    return Results(scores, profiles, tuple(profiles.values()), fidelity=compared)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("number", TABLES)
def test_tables_show_no_fid_and_all_else(tmp_path, config, number):
    wanted = TABLES[number].needs(config)
    assert not wanted.reconstruction
    render_table(number, config, _results(config, wanted), tmp_path / "table")
    with (tmp_path / "table.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    shown = {column for row in rows for column, value in row.items() if value and "fid" in column
             and not column.endswith(("_paper", "_source")) and "star" not in column}
    assert rows and not shown
    assert number != 2 or any(row["latency_s"] for row in rows)


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn(tmp_path, name):
    config = CONFIGS["smoke"]
    paths = render(name, config, _results(config, figure_needs(name, config)), tmp_path, tmp_path / name)
    assert paths and all(path.stat().st_size > 5000 for path in paths)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_rivals_ablations_and_verdicts_are_made(tmp_path, config):
    results = _results(config, TABLES[2].needs(config))
    (path, *_) = write_rivals(config, results, tmp_path / "rivals")
    assert path.stat().st_size
    assert write_ablations(config, results, tmp_path / "ablations.csv")
    judgements = judge(config, results, tmp_path)
    assert all(one.claim for one in judgements) and write_judgements(judgements, config, results, tmp_path / "claims")
