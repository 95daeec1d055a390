"""Reproduced or not: measurements at the paper's size alone."""

import pytest
from claim_fixtures import DIGITS, IMAGENET, profile, profiles, score, scores

from varient.claims import Verdict, judge
from varient.report.results import Results

GPU = {"experiment": "imagenet256", "device": "NVIDIA H100"}


def _judge(claim, results, config=IMAGENET):
    return next(judgement for judgement in judge(config, results) if judgement.id == claim)


@pytest.mark.parametrize(("fid", "verdict"), [(2.05, Verdict.REPRODUCED), (2.10, Verdict.REPRODUCED),
                                              (2.12, Verdict.NOT_REPRODUCED), (3.0, Verdict.NOT_REPRODUCED)])
def test_a_score_agrees_within_rounding_and_two_draws(fid, verdict):
    results = Results({"variant-d16": score("variant-d16", fid, fid_sd=0.02, **GPU)}, {})
    judgement = _judge("table2-variant-d16-fid", results)
    assert judgement.verdict is verdict and judgement.source == "measured (imagenet256)"
    assert judgement.command == ("snakemake --cores all results/imagenet256/table2.csv --configfile "
                                 "workflow/config/imagenet256.yaml")


def test_the_introduction_can_be_reproduced_against_the_table():
    results = Results({"variant-d8": score("variant-d8", 2.15, fid_sd=0.001, **GPU)}, {})
    assert _judge("intro-d8-fid", results).verdict is Verdict.REPRODUCED
    assert "Printed otherwise: 2.12" in _judge("intro-d8-fid", results).evidence
    assert _judge("table2-variant-d8-fid", results).verdict is Verdict.NOT_REPRODUCED


def test_neither_a_cpu_nor_a_miniature_reproduces():
    on_cpu = Results({"variant-d16": score("variant-d16", 2.05, experiment="imagenet256", device="CPU AMD")}, {})
    assert _judge("table2-variant-d16-fid", on_cpu).verdict is Verdict.OPEN
    assert _judge("table2-variant-d16-fid", scores(variant__d16=2.05), DIGITS).verdict is Verdict.OPEN


def _l20(system, seconds, **changes):
    settings = {"precision": "fp16", "cache_policy": "reference", "num_parameters": 2_010_020_356} | changes
    return profile(system, [seconds], experiment="imagenet256", device="NVIDIA L20", **settings)


@pytest.mark.parametrize(("changes", "seconds", "verdict"), [
    ({}, 2.2, Verdict.REPRODUCED), ({}, 1.5, Verdict.NOT_REPRODUCED), ({"cache_policy": "lean"}, 2.1, Verdict.OPEN),
    ({"batch_size": 32}, 2.1, Verdict.OPEN), ({"num_parameters": 574_012}, 2.1, Verdict.OPEN),
])
def test_latency_at_the_papers_setting(changes, seconds, verdict):
    results = profiles(_l20("variant-d16", seconds, **changes))
    assert _judge("table2-variant-d16-latency_s", results, DIGITS).verdict is verdict


def test_a_measured_speedup_goes_before_the_printed_latencies():
    results = profiles(_l20("var-d30", 3.6), _l20("variant-d16", 3.0))
    assert _judge("table2-variant-d16-speedup", results).verdict is Verdict.NOT_REPRODUCED
