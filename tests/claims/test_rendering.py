import csv
import io
import json
import re
import shlex
from contextlib import redirect_stdout
from dataclasses import replace

import pytest
from claim_fixtures import DIGITS, IMAGENET, NOTHING, paper_size_score, scores
from conftest import ROOT
from record_factory import of, score
from typer.testing import CliRunner

from varient.claims import Judgement, Verdict, judge, write_claims
from varient.claims.claims import rankings, table_claims, text_claims
from varient.claims.rendering import to_markdown
from varient.claims.tally import by_verdict
from varient.cli import app

pytestmark = pytest.mark.usefixtures("published")


def test_both_files_are_written_and_the_csv_has_every_judgement(tmp_path):
    paths = write_claims(DIGITS, NOTHING, tmp_path / "6.3" / "claims.v1")
    assert [path.name for path in paths] == ["claims.v1.csv", "claims.v1.md"]
    rows = list(csv.DictReader(io.StringIO(paths[0].read_text())))
    judgements = judge(DIGITS, NOTHING)
    assert [row["id"] for row in rows] == [judgement.id for judgement in judgements]
    assert list(rows[0]) == ["id", "where", "claim", "printed", "verdict", "found", "evidence", "source", "command",
                             "kind", "finding", "by_loss"]
    assert sorted(path.name for path in paths[0].parent.iterdir()) == ["claims.v1.csv", "claims.v1.md"]


def test_the_page_opens_with_counts_and_contradictions(tmp_path):
    page = write_claims(DIGITS, scores(variant__d4__p100=1.5, variant__d4__p10=50), tmp_path / "claims")[1].read_text()
    counts = {verdict: int(places) for verdict, places in re.findall(r"^\| ([a-z ]+) \| \d+ \| (\d+) \|", page,
                                                                     re.MULTILINE)}
    assert counts["contradicts"] == by_verdict(JUDGED)[Verdict.CONTRADICTS].places
    assert sum(counts.values()) == len(JUDGED)
    titles = re.findall(r"^## ([^:\n]+)", page, re.MULTILINE)
    assert titles == ["Contradicted", "The miniature shows it", "Holds by arithmetic",
                      "Consistent with the paper's other numbers", "Open", "All claims"]
    assert ("- section 4.5.2, memory increase from N=6 to N=7 at d=16: printed **14%**, arithmetic: **7.4 %** "
            "(`4.5.2-mem`)") in page


GOLDEN = """\
# Verdicts on the paper's claims

Progressive Supernet Training for Efficient Visual Autoregressive Modeling (arXiv 2511.16546v1): 4 findings in 5 \
places, namely 2 numbers and sentences of its text, 2 cells of Tables 1 to 8, and 1 rankings of systems. Each verdict \
is computed from the printed numbers, from arithmetic and from what the experiment `digits` has measured.

| Verdict | Findings | Places | Meaning |
| --- | --- | --- | --- |
| contradicts | 1 | 2 | arithmetic, or another printed number of the same quantity, gives another result |
| direction reversed in miniature | 1 | 1 | in the miniature every difference is the other way round, beyond its noise |
| open | 2 | 2 | needs weights, data or a GPU, has nothing to be checked against, or is measured at the paper's size \
but within noise |

A finding is one thing that the paper says or one discrepancy in it; its places are all cells and sentences that \
print it. Where most places agree, they are open and only the others are contradicted, so a finding can count under \
two verdicts.

A printed number agrees with a value within half a unit of its last place. KV caches and totals of memory also agree \
within 0.1% (our choice): the paper rounds some and truncates others, and its 28677 and 8156 are off by more than \
that explains. "MB" are MiB, "GB" 1000 MiB. A percentage without decimals that is a multiple of 5 counts as rounded \
to the nearest 5: "65%" stands for 62.5 to 67.5; not shares of the layers, of which one is printed as 13%. What \
follows from printed numbers agrees if it does for some values within the rounding and tolerance of each. The \
evidence says where a value agrees by one of these tolerances alone.

In rankings ± is half the width of a 95 % interval, over redraws of the images and trainings, by Student's t. > is a \
difference in the claimed direction of more than 2 standard errors (of more by Student's t, where few trainings tell \
the spread), < one in the opposite direction beyond what chance produces in as many comparisons as the ranking has \
pairs, ~ is neither, and ≥ means at least as good within the margin that the evidence states. The rule is \
`varient.claims.noise.resolved`. All supernets are fine-tuned from one base network, and their seeds vary the \
fine-tuning only. What is not fine-tuned (base network, untrained subnets, CoDe, DiT, LlamaGen) is therefore assumed \
to vary between trainings by at least 41% (standard deviation), and so is all else where no arm has several \
trainings. The miniature decides 1 of the 1 rankings.

Left out: score of x, which belongs to smoke.

## Contradicted: 1 finding in 2 places

- introduction, section 4.2, FID: printed **2.15**, other printed numbers: **2.12** (`a`, `e`)

## The miniature shows the opposite: 1 finding in 1 place

- Table 1, early > late: a | b. (`d`)

## Open: 2 findings in 2 places

- 2 places in Table 8: `snakemake x`

## All claims

Consecutive claims with the same evidence share a row.

| Claim | Where | What | Printed | Verdict | Found | Source | Evidence | Shown by |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| a | introduction | FID | 2.15 | contradicts | 2.12 | paper | Table 2. | `cat` |
| e | section 4.2 | FID again | 2.15 | contradicts | 2.12 | paper | Table 2. | `cat` |
| b; c | Table 8 | FID 1; FID 2 | 2.0; 2.1 | open |  | paper | Needs weights. | `snakemake x` |
| d | Table 1 | early > late | 3 > 2 | direction reversed in miniature | of 1 pair 0 as claimed, 1 reversed, 0 \
within noise | measured (digits) | a \\| b. | `snakemake y` |
"""


def test_the_page():
    judgements = [
        Judgement("a", "introduction", "FID", "2.15", Verdict.CONTRADICTS, "2.12", "Table 2.", "paper", "cat",
                  "text", "FID of d8"),
        Judgement("e", "section 4.2", "FID again", "2.15", Verdict.CONTRADICTS, "2.12", "Table 2.", "paper", "cat",
                  "text", "FID of d8"),
        Judgement("b", "Table 8", "FID 1", "2.0", Verdict.OPEN, "", "Needs weights.", "paper", "snakemake x", "cell",
                  "FID 1"),
        Judgement("c", "Table 8", "FID 2", "2.1", Verdict.OPEN, "", "Needs weights.", "paper", "snakemake x", "cell",
                  "FID 2"),
        Judgement("d", "Table 1", "early > late", "3 > 2", Verdict.REVERSED, "of 1 pair 0 as claimed, 1 reversed, "
                  "0 within noise", "a | b.", "measured (digits)", "snakemake y", "ranking", "d")]
    assert to_markdown(judgements, "digits", ["score of x, which belongs to smoke"]) == GOLDEN


def test_every_verdict_has_one_meaning_and_the_page_prints_it():
    for words in ({verdict.meaning for verdict in Verdict}, {verdict.heading for verdict in Verdict}):
        assert len(words) == len(Verdict)
    page = to_markdown([replace(JUDGED[0], verdict=verdict) for verdict in Verdict], "digits")
    for verdict in Verdict:
        assert f"| {verdict} | 1 | 1 | {verdict.meaning} |" in page
        assert f"## {verdict.heading}: 1 finding in 1 place\n" in page


def test_the_page_counts_its_claims():
    text, cells, orders = (sum(judgement.kind == kind for judgement in JUDGED) for kind in ("text", "cell", "ranking"))
    page = to_markdown(JUDGED, "digits")
    assert f"{text} numbers and sentences of its text, {cells} cells of Tables 1 to 8, and {orders} rankings" in page
    assert (text, cells, orders) == (len(text_claims()), len(table_claims()), len(rankings()))


def test_a_foreign_score_is_named_and_left_out(tmp_path):
    found = of(score("var-d30", 0.6), score("free-d16", 3.0, experiment="smoke"))
    page = write_claims(DIGITS, found, tmp_path / "claims")[1].read_text()
    assert "Left out: score of free-d16, which belongs to smoke." in page
    assert "Left out" not in write_claims(DIGITS, NOTHING, tmp_path / "claims")[1].read_text()


def test_what_is_left_out_is_text_on_one_line_whatever_a_record_says():
    hostile = "x\n\n# y <script> [a](b) | *z*"
    page = to_markdown(JUDGED[:1], "digits", [f"score of {hostile}, which belongs elsewhere"], [f"Said: {hostile}."])
    assert r"Said: x # y \<script\> \[a\](b) \| \*z\*." in page.splitlines()
    (line,) = [line for line in page.splitlines() if line.startswith("Left out: ")]
    assert r"x # y \<script\> \[a\](b) \| \*z\*, which belongs elsewhere." in line


@pytest.mark.parametrize("verdict", [Verdict.OPEN, Verdict.REVERSED, Verdict.CONTRADICTS])
def test_evidence_is_text_on_one_line_whatever_a_record_says(verdict):
    hostile = "on x\n\n# y <script>z</script> [a](javascript:b) ![c](http://d)"
    page = to_markdown([replace(JUDGED[0], verdict=verdict, evidence=hostile, found=hostile)], "digits")
    assert "\n# y" not in page and not re.search(r"(?<!\\)(<script|</script|\[a\]\(|\[c\]\()", page)


def test_the_legend_speaks_of_one_base_network_in_miniature_alone():
    small = to_markdown(judge(DIGITS, scores(free__d2=20.0, free__d4=2.0)), "digits")
    assert "from one base network" not in to_markdown(JUDGED, "digits") + small  # two pairs lack records: open
    small = to_markdown(judge(DIGITS, scores(variant__d4=1.0, variant__d4__skip=3.0)), "digits")
    assert "from one base network" in small and "by at least 41%" in small
    large = judge(IMAGENET, of(paper_size_score("variant-d16", 2.05), paper_size_score("variant-d16-skip", 9.44)))
    page = to_markdown(large, "imagenet256")
    assert "over redraws of the images and trainings" in page and "from one base network" not in page


def test_what_is_measured_and_open_is_not_asked_for_again():
    fids = {2: 2.97, 4: 2.28, 8: 2.12, 16: 2.12}
    page = to_markdown(judge(IMAGENET, of(*(paper_size_score(f"variant-d{d}", f) for d, f in fids.items()))), "x")
    assert "- 1 place in Table 2: measured, but within noise or not comparable" in page


# --- the commands ---------------------------------------------------------------------------------------------------

JUDGED = judge(DIGITS, NOTHING)
COST_KEYS = {"kv_cache_mb": "kv_cache_mib", "kv": "kv_cache_mib", "from": "kv_cache_mib", "to": "kv_cache_mib",
             "params_mb": "parameters_mib", "latency_s": "latency_s"}


def _output(command):
    """What the command prints, run here."""
    words = shlex.split(command)
    if words[:2] == ["python", "-c"]:
        with redirect_stdout(io.StringIO()) as output:
            exec(words[2], {})
        return output.getvalue()
    assert words[0] == "varient"
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("judgement", [j for j in JUDGED if j.command.startswith("python -c")], ids=lambda j: j.id)
def test_a_python_command_prints_the_found_value(judgement):
    numbers = [float(word) for word in re.findall(r"\d+(?:\.\d+)?", _output(judgement.command))]
    value = judgement.found.partition(";")[0]  # totals of memory may stand beside it
    found = [float(word) for word in re.findall(r"\d+(?:\.\d+)?", value)]
    assert numbers == pytest.approx(found, abs=0.051) or judgement.found in _output(judgement.command)


COSTED = [j for j in JUDGED if j.command.startswith("varient cost") and j.id.rpartition("-")[2] in COST_KEYS]


@pytest.mark.parametrize("judgement", COSTED, ids=lambda j: j.id)
def test_a_cost_command_prints_the_found_value(judgement):
    document = json.loads(_output(judgement.command))
    value = float(judgement.found.split()[0])
    assert document[COST_KEYS[judgement.id.rpartition("-")[2]]] == pytest.approx(value, abs=0.051)


def test_every_command_is_of_a_known_kind_and_names_files_that_exist():
    for command in {judgement.command for judgement in JUDGED}:
        first, *rest = shlex.split(command)
        assert first in ("cat", "python", "varient", "snakemake")
        if first == "cat":
            assert all((ROOT / name).exists() for name in rest)
        if first == "snakemake":
            target = rest[2]
            assert re.fullmatch(r"results/(imagenet256/)?(table[24]|ablations)\.csv|figures/(imagenet256/)?fig3\.png",
                                target)
            assert ("imagenet256" in target) == ("--configfile" in rest)
