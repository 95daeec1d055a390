import csv
import io
import json
import re
import shlex
from contextlib import redirect_stdout

import pytest
from claim_fixtures import DIGITS, NOTHING, scores
from conftest import ROOT
from typer.testing import CliRunner

from varient.claims import Judgement, Verdict, judge, write_claims
from varient.claims.rendering import to_markdown
from varient.cli import app


def test_both_files_are_written_and_the_csv_has_every_judgement(tmp_path):
    paths = write_claims(DIGITS, NOTHING, tmp_path / "6.3" / "claims.v1")
    assert [path.name for path in paths] == ["claims.v1.csv", "claims.v1.md"]
    rows = list(csv.DictReader(io.StringIO(paths[0].read_text())))
    judgements = judge(DIGITS, NOTHING)
    assert [row["id"] for row in rows] == [judgement.id for judgement in judgements]
    assert list(rows[0]) == ["id", "where", "claim", "printed", "verdict", "found", "evidence", "source", "command"]
    assert sorted(path.name for path in paths[0].parent.iterdir()) == ["claims.v1.csv", "claims.v1.md"]


def test_the_page_opens_with_counts_and_contradictions(tmp_path):
    page = write_claims(DIGITS, scores(variant__d4__p100=1.5, variant__d4__p10=5.0), tmp_path / "claims")[1].read_text()
    counts = dict(re.findall(r"^\| ([a-z ]+) \| (\d+) \|", page, re.MULTILINE))
    assert counts["contradicts"] == "25" and sum(map(int, counts.values())) == len(judge(DIGITS, NOTHING))
    titles = re.findall(r"^## ([A-Za-z ]+)", page, re.MULTILINE)
    assert titles == ["Contradicted", "The miniature shows it", "Holds", "Open", "All claims"]
    assert ("- section 4.5.2, memory increase from N=6 to N=7 at d=16: printed **14%**, arithmetic: **7.4 %** "
            "(`4.5.2-mem`)") in page


GOLDEN = """\
# Verdicts on the paper's claims

Progressive Supernet Training for Efficient Visual Autoregressive Modeling (arXiv 2511.16546v1): 4 claims, that is the \
numbers of its text, every cell of tables 1 to 8, and the orders that they are said to show. Each verdict is computed \
from the printed numbers, from arithmetic and from the records of the experiment `digits`.

| Verdict | Claims | Meaning |
| --- | --- | --- |
| contradicts | 1 | arithmetic, or another printed number of the same quantity, says otherwise |
| direction not seen in miniature | 1 | the miniature shows the opposite beyond its noise |
| open | 2 | needs weights, data or a GPU, or is a setting with nothing to check it against |

In orders ± is one standard error, > and < are differences of more than 2, ~ those of less; the rule is in \
`varient.claims.miniature.resolved`.

## Contradicted: 1

- introduction, FID: printed **2.15**, other printed numbers: **2.12** (`a`)

## The miniature shows the opposite: 1

- Table 1, early > late: a | b. (`d`)

## Open: 2

- 2 in Table 8: `snakemake x`

## All claims

Neighbours with the same evidence share a row.

| Claim | Where | What | Printed | Verdict | Found | Source | Evidence | Shown by |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| a | introduction | FID | 2.15 | contradicts | 2.12 | paper | Table 2. | `cat` |
| b; c | Table 8 | FID 1; FID 2 | 2.0; 2.1 | open |  | paper | Needs weights. | `snakemake x` |
| d | Table 1 | early > late | 3 > 2 | direction not seen in miniature | of 1 pairs 0 as claimed, 1 the other way, 0 \
within noise | measured (digits) | a \\| b. | `snakemake y` |
"""


def test_the_page():
    judgements = [
        Judgement("a", "introduction", "FID", "2.15", Verdict.CONTRADICTS, "2.12", "Table 2.", "paper", "cat"),
        Judgement("b", "Table 8", "FID 1", "2.0", Verdict.OPEN, "", "Needs weights.", "paper", "snakemake x"),
        Judgement("c", "Table 8", "FID 2", "2.1", Verdict.OPEN, "", "Needs weights.", "paper", "snakemake x"),
        Judgement("d", "Table 1", "early > late", "3 > 2", Verdict.NOT_SEEN, "of 1 pairs 0 as claimed, 1 the other "
                  "way, 0 within noise", "a | b.", "measured (digits)", "snakemake y")]
    assert to_markdown(judgements, "digits") == GOLDEN


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
    found = [float(word) for word in re.findall(r"\d+(?:\.\d+)?", judgement.found)]
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
            assert re.fullmatch(r"results/(imagenet256/)?(table[24]|ablations)\.csv", target)
            assert ("imagenet256" in target) == ("--configfile" in rest)
