"""Which systems the ablations compare, and the file that they end in."""

import pandas as pd
import pytest
from conftest import ROOT
from record_factory import score

from varient.ablations import arms, bridge_system, zone_system
from varient.config import ConfigError, load_config
from varient.records import write_record
from varient.results import Results, write_ablations
from varient.systems.registry import resolve_system

DIGITS = load_config(ROOT / "workflow/config/digits.yaml")


def _record(path, system, experiment="digits"):
    write_record(path, score(system, 1.5, 0.1, recognised=0.9, experiment=experiment))
    return path


def test_every_comparison_of_the_paper_is_there():
    found = arms(DIGITS)
    by = {name: [arm for arm in found if arm.comparison == name] for name in {arm.comparison for arm in found}}
    assert {arm.system for arm in by["zones"]} >= {"free-d16-r1to3", "free-d16-r4to6", "free-d16", "var-d30"}
    ratios = {(arm.arm, arm.seed, arm.network) for arm in by["ratios"]}
    fixed = {"p = 0, control", *(f"p = {ratio}" for ratio in ("0.1", "0.2", "0.5", "0.8", "1"))}
    assert {name for name, *_ in ratios} == {"three phases", *fixed}
    assert len(ratios) == (4 * 3 + 3) * 2  # three trainings of the three phases, p = 0.5, 0.8 and 1, one of the rest
    assert {(arm.arm, arm.seed, arm.network) for arm in by["stages"]} == {
        (f"{name}, epoch 5", 0, network) for name in fixed - {"p = 0, control"} for network in ("subnet", "full")}
    assert [(arm.arm, arm.system) for arm in by["refinement"] if arm.network == "full"] == [
        ("epoch 20, end of phase 2", "variant-d4-e20-full"), ("epoch 20, end of phase 2", "variant-d4-s1-e20-full"),
        ("epoch 20, end of phase 2", "variant-d4-s2-e20-full"), ("epoch 32, end of phase 3", "variant-d4-full"),
        ("epoch 32, end of phase 3", "variant-d4-s1-full"), ("epoch 32, end of phase 3", "variant-d4-s2-full")]
    assert [arm.system for arm in by["evolution"]] == ["variant-d16-e5", "variant-d16-e20", "variant-d16"]
    assert {arm.arm for arm in by["bridge"]} == {"N = 6", "skip all"} and len(by["bridge"]) == 2 * 3 * 2
    assert {arm.system for arm in by["grid"]} >= {"variant-d8", "variant-d8-n7", "variant-d2-full"}
    assert {arm.system for arm in by["extensions"]} >= {"variant-d16-multi", "variant-d2-multi-full", "variant-d4-auto"}


def test_the_third_phase_is_looked_at_without_another_training():
    """Its arms are weights that trainings of other arms keep; a third phase of no epochs has no before and after."""
    found = arms(DIGITS)
    trained = {network for arm in found if arm.comparison != "refinement"
               for network in resolve_system(arm.system, DIGITS).weights}
    for arm in (arm for arm in found if arm.comparison == "refinement"):
        assert {network.removesuffix("-e20") for network in resolve_system(arm.system, DIGITS).weights} <= trained
    phases = DIGITS.supernet.phases | {4: (5, 15, 0)}
    config = DIGITS.model_copy(update={"supernet": DIGITS.supernet.model_copy(update={"phases": phases})})
    assert "refinement" not in {arm.comparison for arm in arms(config)}


def test_one_id_for_a_subnet_at_some_scales():
    zone = {"bridge": 6, "num_scales": 10}
    assert [str(zone_system(16, *window, **zone)) for window in ((1, 3), (7, 10))] == ["free-d16-r1to3", "free-d16"]
    assert [str(bridge_system(8, sampled, **zone)) for sampled in (6, 7, 10)] == ["variant-d8", "variant-d8-n7",
                                                                            "variant-d8-full"]


def test_the_file_has_a_row_an_arm_and_gaps_where_no_record_is(tmp_path):
    records = [_record(tmp_path / f"{name}.json", name) for name in ("variant-d4", "variant-d4-skip-s1-full")]
    write_ablations(DIGITS, Results.read(records), tmp_path / "ablations.csv")
    table = pd.read_csv(tmp_path / "ablations.csv", keep_default_na=False)
    assert len(table) == len(arms(DIGITS))
    rows = table[table["system"] == "variant-d4"]
    assert set(rows["comparison"]) == {"ratios", "refinement", "bridge", "grid"}
    assert set(rows["fid"].astype(float)) == {1.5}
    skipped = table[table["system"] == "variant-d4-skip-s1-full"].iloc[0]
    assert (skipped["arm"], skipped["seed"], skipped["network"]) == ("skip all", 1, "full")
    assert float(skipped["fid_sd"]) == 0.1
    assert (table[table["system"] == "variant-d4-p50"]["fid"] == "").all()


def test_records_of_elsewhere_fill_no_cell_and_experiments_without_ablations_are_refused(tmp_path):
    strange = Results.read([_record(tmp_path / "r.json", "variant-d4", "smoke")])
    write_ablations(DIGITS, strange, tmp_path / "strange.csv")
    assert (pd.read_csv(tmp_path / "strange.csv", keep_default_na=False)["fid"] == "").all()
    without = DIGITS.model_copy(update={"ablations": None})
    with pytest.raises(ConfigError, match="has no section 'ablations'"):
        write_ablations(without, Results({}, {}), tmp_path / "ablations.csv")
    assert not (tmp_path / "ablations.csv").exists()
