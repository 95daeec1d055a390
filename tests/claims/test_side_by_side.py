"""The paper's rankings in several experiments, side by side."""

import pytest
from claim_fixtures import DIGITS, FASHION, IMAGENET, NOTHING, paper_size_score, scores
from committed_results import FOLDER, committed, rows
from record_factory import of, profile
from typer.testing import CliRunner

from varient.claims import Verdict, judge, read_judgements, write_claims
from varient.claims.side_by_side import Shown, read_experiments, shown, write_orders
from varient.claims.tally import decided_with_losses
from varient.claims.verdicts import Judgement
from varient.cli import app
from varient.results import Results

OTHER = DIGITS.model_copy(update={"name": "other"})
DEPTHS = {"variant__d2": 4.0, "variant__d4": 3.0, "variant__d8": 2.0, "variant__d16": 1.0}


def _judgement(verdict, by_loss=""):
    return Judgement("a", "Table 1", "x > y", "", verdict, "", "", "measured (digits)", "", "ranking", "f", by_loss)


@pytest.mark.parametrize(("verdict", "by_loss", "said"), [
    (Verdict.SEEN, "", Shown.SHOWS), (Verdict.SEEN, Verdict.SEEN, Shown.SHOWS),
    (Verdict.NOT_RESOLVED, Verdict.SEEN, Shown.SHOWS), (Verdict.OPEN, Verdict.REVERSED, Shown.REVERSED),
    (Verdict.REVERSED, "", Shown.REVERSED), (Verdict.PARTLY_REVERSED, Verdict.NOT_RESOLVED, Shown.REVERSED),
    (Verdict.SEEN, Verdict.PARTLY_REVERSED, Shown.SPLIT), (Verdict.REVERSED, Verdict.SEEN, Shown.SPLIT),
    (Verdict.NOT_RESOLVED, "", Shown.WITHIN_NOISE), (Verdict.OPEN, Verdict.NOT_RESOLVED, Shown.WITHIN_NOISE),
    (Verdict.OPEN, "", Shown.NOT_TESTED), (Verdict.REPRODUCED, "", Shown.SHOWS),
    (Verdict.NOT_REPRODUCED, "", Shown.REVERSED)])
def test_scores_and_losses_together(verdict, by_loss, said):
    assert shown(_judgement(verdict, by_loss)) is said


def test_it_counts_as_the_verdicts_do():
    judged = judge(DIGITS, committed())
    said = [shown(judgement) for judgement in judged if judgement.kind == "ranking"]
    decided = sum(one in (Shown.SHOWS, Shown.REVERSED) for one in said)
    assert (decided, said.count(Shown.SPLIT)) == decided_with_losses(judged) and decided > 9


def _named(results, experiment):
    """The same records as another experiment's."""
    return Results({name: record.model_copy(update={"provenance": record.provenance.model_copy(
        update={"experiment": experiment})}) for name, record in results.scores.items()}, {})


def test_a_page_has_a_column_for_each_experiment(tmp_path):
    alike = scores(**dict.fromkeys(DEPTHS, 1.0), var__d30=1.0)
    apart = _named(scores(**{name: 10.0 ** fid for name, fid in DEPTHS.items()}, var__d30=0.1), "other")
    write_claims(DIGITS, alike, tmp_path / "first")
    write_claims(OTHER, apart, tmp_path / "second")
    result = CliRunner().invoke(app, ["orders", str(tmp_path / "first.csv"), str(tmp_path / "second.csv"), "-o",
                                      str(tmp_path / "orders.md")])
    assert result.exit_code == 0, result.output
    by_id = {row["Id"]: row for row in rows((tmp_path / "orders.md").read_text(), "| Ranking")}
    assert len(by_id) == sum(judgement.kind == "ranking" for judgement in judge(DIGITS, NOTHING))
    order = by_id["table2-fid-order"]
    assert (order["digits"], order["other"], order["Shows in"]) == ("within noise", "shows", "other")
    assert by_id["table2-latency-order"]["Shows in"] == "none"
    assert by_id["table2-latency-order"]["digits"] == "not tested"


def test_pairs_that_were_tested_are_said_where_others_lack_records(tmp_path):
    write_claims(DIGITS, scores(variant__d4=1.0, variant__d4__p80=9.0), tmp_path / "claims")
    write_orders(read_experiments([tmp_path / "claims.csv"]), tmp_path / "orders.md")
    by_id = {row["Id"]: row["digits"] for row in rows((tmp_path / "orders.md").read_text(), "| Ranking")}
    assert by_id["figure2-subnet-order"] == "not tested (of 1 pair 1 as claimed, 0 reversed, 0 within noise)"


@pytest.mark.parametrize(("fids", "changes", "said"), [
    ({2: 9.0, 4: 5.0, 8: 3.0, 16: 2.0}, {}, Shown.SHOWS),
    ({2: 2.97, 4: 2.28, 8: 2.12, 16: 2.05}, {}, Shown.WITHIN_NOISE),  # another training might turn it round
    ({2: 9.0, 4: 5.0, 8: 3.0, 16: 9.0}, {}, Shown.REVERSED),
    ({2: 9.0, 4: 5.0, 8: 3.0, 16: 2.0}, {"num_images": 5000}, Shown.NOT_COMPARABLE),
    ({2: 9.0, 4: 5.0}, {}, Shown.NOT_TESTED)])
def test_at_the_papers_size_too(tmp_path, published, fids, changes, said):
    results = of(*(paper_size_score(f"variant-d{d}", fid, **changes) for d, fid in fids.items()))
    write_claims(IMAGENET, results, tmp_path / "claims")
    [(name, orders)] = read_experiments([tmp_path / "claims.csv"]).items()
    assert name == "imagenet256"
    assert {shown(judgement) for judgement in orders if judgement.id == "table2-fid-order"} == {said}


def test_the_committed_page_is_of_both_miniatures(tmp_path):
    for config in (DIGITS, FASHION):
        write_claims(config, committed(config.name), tmp_path / config.name)
    write_orders(read_experiments([tmp_path / f"{config.name}.csv" for config in (DIGITS, FASHION)]),
                 tmp_path / "orders.md")
    assert (tmp_path / "orders.md").read_text() == (FOLDER / "orders.md").read_text()


def test_verdicts_are_read_as_they_were_written(tmp_path):
    judged = judge(DIGITS, committed())
    write_claims(DIGITS, committed(), tmp_path / "claims")
    assert read_judgements(tmp_path / "claims.csv") == judged


def test_files_that_cannot_be_set_side_by_side_are_refused(tmp_path):
    results = Results({}, {"var-d30": profile("var-d30", [1.0]), "variant-d16": profile("variant-d16", [0.5])})
    for name, found in (("measured", results), ("nothing", NOTHING)):
        write_claims(DIGITS, found, tmp_path / name)
    measured, nothing = tmp_path / "measured.csv", tmp_path / "nothing.csv"
    for paths, said in (([nothing], "has those of none"), ([measured, measured], "a second file of digits")):
        with pytest.raises(ValueError, match=said):
            read_experiments(paths)
        result = CliRunner().invoke(app, ["orders", *map(str, paths), "-o", str(tmp_path / "orders.md")])
        assert result.exit_code == 1 and said in str(result.exception) and not (tmp_path / "orders.md").exists()
