"""The ablations to be read: means, differences by seed, and what differences could be seen."""

from itertools import takewhile

import pytest
from conftest import ROOT
from record_factory import held_out, score
from scipy.stats import ttest_rel

from varient.claims.noise import Estimate, resolved, threshold
from varient.config import load_config
from varient.report.ablations import write_ablations
from varient.results import Paired, Results, pooled_spread, resolved_difference

DIGITS = load_config(ROOT / "workflow/config/digits.yaml")
SUFFIXES = ("", "-s1", "-s2")
BRIDGE, SKIP = (0.810, 0.841, 0.816), (0.876, 0.950, 0.919)


def _results(**losses):
    scores = {f"variant-d4{suffix}": value for suffix, value in zip(SUFFIXES, BRIDGE, strict=True)}
    scores |= {f"variant-d4-skip{suffix}": value for suffix, value in zip(SUFFIXES, SKIP, strict=True)}
    return Results({name: score(name, value) for name, value in scores.items()}, {},
                   held_out=tuple(held_out(f"supernet-{name}", {name: loss}) for name, loss in losses.items()))


def _rows(text, head):
    """Rows of the table that begins with these headings, as lists of cells."""
    lines = text[text.index(f"| {head}"):].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in takewhile(bool, lines)]


def test_a_paired_difference_is_the_t_test_of_the_differences():
    paired = Paired.of(dict(enumerate(SKIP)), dict(enumerate(BRIDGE)))
    expected = ttest_rel(SKIP, BRIDGE)
    assert (paired.t, paired.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert paired.mean == pytest.approx(sum(SKIP) / 3 - sum(BRIDGE) / 3) and paired.count == 3


def test_only_seeds_of_both_arms_are_paired():
    both = Paired.of({0: 1.0, 1: 2.0}, {0: 1.0, 1: 1.5})
    assert Paired.of({0: 1.0, 1: 2.0, 7: 9.0}, {1: 1.5, 0: 1.0, 3: 9.0}) == both
    assert Paired.of({0: 1.0, 1: 2.0}, {1: 1.0, 2: 2.0}) is None


@pytest.mark.parametrize(("second", "t", "p"), [((0.0, 1.0), float("inf"), 0.0), ((1.0, 2.0), 0.0, 1.0),
                                                ((2.0, 3.0), float("-inf"), 0.0)])
def test_equal_differences_are_certain_or_none(second, t, p):
    paired = Paired.of({0: 1.0, 1: 2.0}, dict(enumerate(second)))
    assert (paired.t, paired.p) == (t, p)


def test_spread_is_pooled_by_degrees_of_freedom_and_says_what_is_resolved():
    assert pooled_spread([[1.0], []]) is None
    # Relative variances 0.02 with 1 degree of freedom and 0.01 with 2.
    assert pooled_spread([[0.9, 1.1], [1.8, 2.0, 2.2], [5.0]]) == (pytest.approx((0.04 / 3) ** 0.5), 3)
    assert resolved_difference(0.073, 3, 2) == pytest.approx(2 * 0.073 * (2 / 3) ** 0.5)
    assert resolved_difference(0.1, 2, 2) == pytest.approx(0.2)


def test_arms_that_share_seeds_are_compared_seed_by_seed(tmp_path):
    csv, md = write_ablations(DIGITS, _results(), tmp_path / "ablations.csv")
    text = md.read_text()
    means = {tuple(row[:4]): row[4:] for row in _rows(text, "Comparison | Arm | d | Network | Trainings")}
    assert means["bridge", "skip all", "4", "subnet"] == ["3", "0.915 ± 0.092"]
    assert means["bridge", "skip all", "4", "full"] == ["0", "–"]
    (row,) = _rows(text, "Comparison | Arm | Compared with")
    expected = ttest_rel(SKIP, BRIDGE)
    assert row == ["bridge", "skip all", "N = 6", "4", "subnet",
                   f"+0.093 (t = {expected.statistic:.1f}, p = {expected.pvalue:.2g})", "–"]
    assert csv.read_text().startswith("comparison,arm,depth,seed,network,system,fid")


def test_the_note_says_which_differences_three_trainings_resolve(tmp_path):
    text = write_ablations(DIGITS, _results(), tmp_path / "ablations.csv")[1].read_text()
    spread, freedom = pooled_spread([BRIDGE, SKIP])
    errors = threshold(1, freedom)
    assert freedom == 4 and errors > 2 and f"scatter by {100 * spread:.2g} %" in text
    least = resolved_difference(spread, 3, errors)
    assert f"with 3 an arm no difference below {100 * least:.2g} % is resolved ({errors:.3g} standard errors)" in text
    for share, sign in ((0.999, 0), (1.001, 1)):  # by the rule of the verdicts
        means = (Estimate("a", value, spread, 3, freedom=freedom, pooled=True) for value in (1.0, 1 - share * least))
        assert resolved(*means) == sign
    assert "nats per token" not in text  # no losses are there
    losses = {"d4": 1.5, "d4-s1": 1.51, "d4-s2": 1.49, "d4-skip": 1.6, "d4-skip-s1": 1.62, "d4-skip-s2": 1.6}
    results = _results(**{f"variant-{name}": loss for name, loss in losses.items()})
    text = write_ablations(DIGITS, results, tmp_path / "ablations.csv")[1].read_text()
    assert "nats per token" in text and "Loss: trainings of an arm scatter by" in text
    (row,) = _rows(text, "Comparison | Arm | Compared with")
    assert row[-1].startswith("+0.107 (t = ")


def test_without_records_there_are_no_numbers(tmp_path):
    text = write_ablations(DIGITS, Results({}, {}), tmp_path / "ablations.csv")[1].read_text()
    assert "scatter" not in text and "Compared with" not in text
    assert all(row[5:] == ["–"] for row in _rows(text, "Comparison | Arm | d | Network | Trainings"))


def test_base_networks_take_the_place_of_seeds(tmp_path):
    settings = DIGITS.ablations.model_copy(update={"bases": 2, "on_bases": ("p80",)})
    config = DIGITS.model_copy(update={"ablations": settings})
    values = {"variant-d4": 0.8, "variant-d4-b1": 1.0, "variant-d4-b2": 1.2, "variant-d4-p80": 0.7,
              "variant-d4-p80-b1": 0.8, "variant-d4-p80-b2": 1.0, "var-d30": 0.7, "var-d30-b1": 0.9}
    results = Results({name: score(name, value) for name, value in values.items()}, {})
    text = write_ablations(config, results, tmp_path / "ablations.csv")[1].read_text()
    means = {tuple(row[:4]): row[4:6] for row in _rows(text, "Comparison | Arm | d | Network | Trainings")}
    assert means["bases", "three phases", "4", "subnet"] == ["3", "1.000 ± 0.497"]
    assert means["bases", "base network", "30", "full"][1].startswith("0.800 ± ")
    rows = [row for row in _rows(text, "Comparison | Arm | Compared with") if row[0] == "bases"]
    assert [row[1:3] for row in rows] == [["p = 0.8", "three phases"]] and rows[0][5].startswith("-0.167 (t = ")
    assert "Trainings from several base networks scatter by" in text
