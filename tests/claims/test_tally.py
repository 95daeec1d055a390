"""Findings and places: one count, for the pages, the command and the front page."""

import re

import pytest
from claim_fixtures import DIGITS, FASHION, NOTHING, rows_instead
from committed_results import FOLDER, committed, rows
from conftest import ROOT
from typer.testing import CliRunner

from varient.claims import Verdict, judge
from varient.claims.tally import DECIDED, Tally, by_verdict, decided_rankings, decided_with_losses
from varient.cli import app

README = " ".join((ROOT / "README.md").read_text().split())


@pytest.fixture(scope="module")
def judged():
    return judge(DIGITS, NOTHING)


@pytest.fixture(scope="module")
def of_the_run():
    return judge(DIGITS, committed())


@pytest.mark.parametrize("places", [
    {"intro-d2-fid", "4.2-d2-fid"},                                            # one number in two sections
    {"table2-variant-d16-kv_cache_mb", "table3-b64-variant-d16-kv_cache_mb"},  # and in two tables
    {"table2-var-d30-memory_mb", "table3-b64-var-d30-total_mb"},               # two numbers that contradict each other
    {"intro-50", "3.2.1-50", "table4-d16-depth_share"},
    {"table3-b256-variant-d2-total_mb", "4.3-d2-b256"},                        # a cell, and what rests on it
    {"abs-single-model", "intro-single-model", "3.2.2-single-model", "4.2-single-model", "4.5.3-single-model"},
])
def test_a_discrepancy_is_one_finding_in_all_its_places(judged, places):
    contradicted = [judgement for judgement in judged if judgement.verdict is Verdict.CONTRADICTS]
    assert places <= {judgement.id for judgement in contradicted}
    (finding,) = {judgement.finding for judgement in contradicted if judgement.id in places}
    assert places == {judgement.id for judgement in contradicted if judgement.finding == finding}


@pytest.mark.parametrize("places", [
    {f"table3-b64-variant-d{d}-params_mb" for d in (16, 8, 2)},  # 8085 in every row
    {f"table2-variant-d{d}-steps" for d in (16, 8, 4, 2)},       # 6+4
    {"abs-d2-mem", "intro-d2-mem", "4.2-d2-mem", "4.3-d2"},
])
def test_what_holds_in_many_places_is_one_finding(judged, places):
    found = [judgement for judgement in judged if judgement.id in places]
    assert len({judgement.finding for judgement in found}) == 1 and len(found) == len(places)


def test_another_place_is_no_other_finding(monkeypatch, judged):
    rows_instead(monkeypatch, "claims", lambda claims: [
        *claims, *(row | {"id": "again"} for row in claims if row["id"] == "4.5.2-mem")])
    before, after = by_verdict(judged)[Verdict.CONTRADICTS], by_verdict(judge(DIGITS, NOTHING))[Verdict.CONTRADICTS]
    assert after == Tally(before.findings, before.places + 1)


def test_places_add_up_and_findings_do_not_exceed_them(judged):
    tallies = by_verdict(judged)
    assert sum(tally.places for tally in tallies.values()) == len(judged) == Tally.of(judged).places
    assert all(0 < tally.findings <= tally.places for tally in tallies.values())
    assert Tally.of(judged).findings < Tally.of(judged).places


def test_the_command_counts_both(tmp_path, judged):
    result = CliRunner().invoke(app, ["claims", "-o", str(tmp_path / "verdicts")])
    assert result.exit_code == 0
    for verdict, tally in by_verdict(judged).items():
        assert f"{verdict}: {tally.findings} finding" in result.stdout and f"in {tally.places} place" in result.stdout
    assert f"in all: {Tally.of(judged)}" in result.stdout


@pytest.mark.parametrize("verdict", [Verdict.CONTRADICTS, Verdict.HOLDS, Verdict.CONSISTENT, Verdict.OPEN])
def test_the_front_page_says_what_is_counted(of_the_run, verdict):
    assert str(by_verdict(of_the_run)[verdict]) in README


def test_the_front_page_says_what_the_miniature_decides(of_the_run):
    decided, rankings = decided_rankings(of_the_run)
    assert f"decide {decided} of {rankings} rankings" in README
    assert f"{Tally.of(of_the_run)}" in README
    assert f"decides {decided} of the {rankings} rankings" in (FOLDER / "claims.md").read_text()


def test_the_front_page_says_what_the_second_miniature_decides():
    judged = judge(FASHION, committed("fashion"))
    decided, with_losses = decided_rankings(judged)[0], decided_with_losses(judged)[0]
    assert f"clothes, with fewer arms, {decided}, and {with_losses} with losses" in README


def test_the_findings_say_what_is_counted(of_the_run):
    text = " ".join((ROOT / "docs/findings.md").read_text().split())
    assert f": {Tally.of(of_the_run)}, {by_verdict(of_the_run)[Verdict.CONTRADICTS]} contradicted." in text


def test_every_verdict_that_a_finding_names_exists_and_what_is_said_of_it_is_its_kind(of_the_run):
    """R names rankings that the digits decide, L by loss, ~ those that they do not, A what arithmetic decides."""
    verdicts = {judgement.id: judgement for judgement in of_the_run}
    text = (ROOT / "docs/findings.md").read_text()
    named = re.findall(r"\*\*([ARPL~])\*\*((?:,?\s+`[\w.-]+`)+)", text)
    assert len(named) > 20
    for rule, ids in named:
        for judgement in (verdicts[claim] for claim in re.findall(r"`([\w.-]+)`", ids)):
            decided = {"A": judgement.source.startswith("arithmetic"), "P": judgement.source == "paper",
                       "R": judgement.verdict in DECIDED,
                       "L": judgement.by_loss in DECIDED, "~": judgement.verdict is Verdict.NOT_RESOLVED}
            assert decided[rule], judgement.id


@pytest.mark.parametrize(("page", "config"), [("claims.md", DIGITS), ("fashion-claims.md", FASHION)])
def test_the_committed_verdicts_are_those_of_the_committed_results(page, config):
    shown = {claim: row["Verdict"] for row in rows((FOLDER / page).read_text(), "| Claim")
             for claim in re.split("; ", row["Claim"])}
    assert shown == {judgement.id: judgement.verdict.value for judgement in judge(config, committed(config.name))}
