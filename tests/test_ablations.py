"""Which systems the ablations compare, and the file that they end in."""

import pandas as pd
import pytest
from conftest import ROOT
from further_arms import FURTHER_DIGITS
from record_factory import held_out, score

from varient.ablations import arms, arms_of, bridge_system, zone_system
from varient.config import ConfigError, load_config, parse_config
from varient.records import write_record
from varient.report.ablations import write_ablations
from varient.results import Results
from varient.systems.registry import resolve_system

DIGITS = FURTHER_DIGITS
OF_ANY_DEPTH = {"zones", "evolution", "grid", "extensions", "plain", "bases"}
"""Comparisons that are not of the ablations' own depth alone."""


def _record(path, system, experiment="digits"):
    write_record(path, score(system, 1.5, 0.1, recognised=0.9, experiment=experiment))
    return path


def test_every_comparison_of_the_paper_is_there():
    found = arms(DIGITS)
    by = {name: [arm for arm in found if arm.comparison == name and (arm.depth == 4 or name in OF_ANY_DEPTH)]
          for name in {arm.comparison for arm in found}}
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


def _with(**changes):
    """The ablations of the digits with these settings alone, beside depth and seeds."""
    settings = {"depth": 4, "seeds": 2} | changes
    return parse_config(DIGITS.model_dump(mode="json") | {"ablations": settings}, "test")


def _systems(config, comparison, network="full"):
    """Label -> full networks (or subnets) of a comparison, in order."""
    found = {}
    for arm in arms_of(config, comparison):
        if arm.network == network:
            found.setdefault(arm.arm, []).append(arm.system)
    return found


def test_comparisons_are_made_at_further_depths_with_their_own_seeds():
    found = arms(_with(ratios={"p50": 2}, further={16: {"seeds": 1, "ratios": {"p80": 1}, "skip_all": "skip"}}))
    systems = [(arm.comparison, arm.depth, arm.system) for arm in found if arm.network == "subnet"]
    assert [part for part in systems if part[1] == 16] == [
        ("ratios", 16, "variant-d16"), ("ratios", 16, "variant-d16-p80"), ("bridge", 16, "variant-d16"),
        ("bridge", 16, "variant-d16-skip")]
    assert [system for comparison, depth, system in systems if (comparison, depth) == ("ratios", 4)] == [
        "variant-d4", "variant-d4-s1", "variant-d4-p50", "variant-d4-p50-s1"]


def test_networks_before_and_after_phase_3_at_each_depth_that_is_named():
    found = arms_of(_with(refined=[16, 2]), "refinement")
    assert [(arm.arm, arm.system) for arm in found if arm.network == "full"] == [
        ("epoch 20, end of phase 2", "variant-d16-e20-full"), ("epoch 25, end of phase 3", "variant-d16-full"),
        ("epoch 20, end of phase 2", "variant-d2-e20-full"), ("epoch 35, end of phase 3", "variant-d2-full")]


def test_exposures_stand_beside_the_three_phases():
    assert _systems(_with(exposures={"p70": 1, "reversed": 2}), "exposures") == {
        "three phases": ["variant-d4-full", "variant-d4-s1-full"], "p = 0.7": ["variant-d4-p70-full"],
        "reversed": ["variant-d4-reversed-full", "variant-d4-reversed-s1-full"]}


def test_rates_say_which_they_are_and_stand_beside_the_usual_one():
    assert _systems(_with(rates=["low", "cosine", "p80", "high80"]), "rates", "subnet") == {
        "three phases, learning rate 0.0003": ["variant-d4"], "three phases, learning rate 0.0001": ["variant-d4-low"],
        "three phases, learning rate 0.0003, cosine": ["variant-d4-cosine"],
        "p = 0.8, learning rate 0.0003": ["variant-d4-p80"], "p = 0.8, learning rate 0.001": ["variant-d4-high80"]}


def test_each_base_network_is_scored_and_trained_from():
    assert _systems(_with(bases=1, on_bases=["p80"]), "bases") == {
        "base network, base 0": ["var-d30"], "three phases, base 0": ["variant-d4-full"],
        "p = 0.8, base 0": ["variant-d4-p80-full"], "base network, base 1": ["var-d30-b1"],
        "three phases, base 1": ["variant-d4-b1-full"], "p = 0.8, base 1": ["variant-d4-p80-b1-full"]}


def test_full_networks_are_sampled_plainly_as_often_as_they_were_trained():
    found = arms(_with(plain=["p10", "p80"], ratios={"p10": 1, "p80": 2}))
    assert [arm.system for arm in found if arm.comparison == "plain"] == [
        "var-d30-plain", "variant-d4-full-plain", "variant-d4-s1-full-plain", "variant-d4-p10-full-plain",
        "variant-d4-p80-full-plain", "variant-d4-p80-s1-full-plain"]
    assert {arm.network for arm in found if arm.comparison == "plain"} == {"full"}


def test_other_base_networks_of_an_imported_one_are_refused():
    settings = load_config(ROOT / "workflow/config/imagenet256.yaml").model_dump(mode="json")
    settings["ablations"]["bases"] = 1
    with pytest.raises(ConfigError, match=r"ablations\.bases: other base networks need base\.training"):
        parse_config(settings, "test")


def test_the_third_phase_is_looked_at_without_another_training():
    """Its arms are weights that trainings of other arms keep; a third phase of no epochs has no before and after."""
    found = arms(DIGITS)
    trained = {network for arm in found if arm.comparison != "refinement"
               for network in resolve_system(arm.system, DIGITS).weights}
    for arm in (arm for arm in found if arm.comparison == "refinement"):
        assert {network.removesuffix("-e20") for network in resolve_system(arm.system, DIGITS).weights} <= trained
    phases = DIGITS.supernet.phases | {4: (5, 15, 0)}
    config = DIGITS.model_copy(update={"supernet": DIGITS.supernet.model_copy(update={"phases": phases})})
    assert 4 not in {arm.depth for arm in arms_of(config, "refinement")}


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
    assert set(rows["comparison"]) == {"ratios", "refinement", "bridge", "grid", "exposures", "rates", "bases"}
    assert set(rows["fid"].astype(float)) == {1.5}
    skipped = table[table["system"] == "variant-d4-skip-s1-full"].iloc[0]
    assert (skipped["arm"], skipped["seed"], skipped["network"]) == ("skip all", 1, "full")
    assert float(skipped["fid_sd"]) == 0.1
    assert (table[table["system"] == "variant-d4-p50"]["fid"] == "").all()


def test_a_row_has_the_loss_under_its_own_layers_with_or_without_a_score(tmp_path):
    losses = {"variant-d4-p10": 1.7, "variant-d4-p10-full": 1.4}
    write_record(tmp_path / "loss.json", held_out("supernet-d4-p10", losses))
    results = Results.read([_record(tmp_path / "r.json", "variant-d4-p10")], held_out=[tmp_path / "loss.json"])
    write_ablations(DIGITS, results, tmp_path / "ablations.csv")
    table = pd.read_csv(tmp_path / "ablations.csv")
    rows = table[table["comparison"] == "ratios"].set_index("system")
    assert rows.loc[["variant-d4-p10", "variant-d4-p10-full"], "loss"].tolist() == [1.7, 1.4]
    assert rows.loc["variant-d4-p10", "loss_sd"] == 0.01 and rows.loc["variant-d4-p10", "fid"] == 1.5
    assert rows["loss"].isna().sum() == len(rows) - 2


def test_records_of_elsewhere_fill_no_cell_and_experiments_without_ablations_are_refused(tmp_path):
    strange = Results.read([_record(tmp_path / "r.json", "variant-d4", "smoke")])
    write_ablations(DIGITS, strange, tmp_path / "strange.csv")
    assert (pd.read_csv(tmp_path / "strange.csv", keep_default_na=False)["fid"] == "").all()
    without = DIGITS.model_copy(update={"ablations": None})
    with pytest.raises(ConfigError, match="has no section 'ablations'"):
        write_ablations(without, Results({}, {}), tmp_path / "ablations.csv")
    assert not (tmp_path / "ablations.csv").exists()


@pytest.mark.parametrize("settings", [
    {"extensions": ["distil", "distil"]}, {"bridges": [6, 7, 6]},
    {"zones": [[1, 3], [1, 3]], "zone_depths": [16]}, {"stages": ["p50", "p50"]}, {"evolution": [16, 16]},
    {"plain": ["p80", "p80"]}, {"bases": 1, "on_bases": ["p80", "p80"]},
], ids=lambda settings: next(iter(settings)))
def test_what_is_named_twice_is_not_counted_as_two_trainings(settings):
    with pytest.raises(ConfigError, match=r"ablations: .* is named twice"):
        arms(_with(**settings))


def test_two_recipes_of_one_ratio_are_not_taken_for_trainings_of_one_arm():
    recipes = DIGITS.model_dump(mode="json")["supernet"]["recipes"]
    recipes["ha"] = recipes["p50"] | {"learning_rate": 1e-6}
    settings = DIGITS.model_dump(mode="json")
    settings["supernet"]["recipes"] = recipes
    settings["ablations"] = {"depth": 4, "seeds": 2, "ratios": {"p50": 1, "ha": 1}}
    with pytest.raises(ConfigError, match="ablations: ratios, 'p = 0.5' of d = 4: variant-d4-p50 and variant-d4-ha"):
        arms(parse_config(settings, "test"))
