"""The front page's numbers are those of the committed results."""

import re

import pytest
from conftest import ROOT

README = (ROOT / "README.md").read_text()
RESULTS = ROOT / "docs/results"
ROWS = {"VAR, 30 layers": ["var-d30"], "VARiant d = 16": ["variant-d16"], "VARiant d = 8": ["variant-d8"],
        "VARiant d = 4": ["variant-d4"], "VARiant d = 2": ["variant-d2"], "CoDe": ["code-n6", "free-code-n6"],
        "DiT": ["dit-mini", "dit-mini-250"], "LlamaGen": ["llamagen-mini"], "real digits": ["real-holdout"]}


def table(text: str, head: str) -> list[dict[str, str]]:
    """Rows of the Markdown table whose first line starts with ``head``."""
    lines = text[text.index(head):].splitlines()
    lines = lines[:next((number for number, line in enumerate(lines) if not line.startswith("|")), None)]
    names, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return [dict(zip(names, row, strict=True)) for row in rows]


def shown(cell: str) -> list[list[float]]:
    """The numbers of a front-page cell, one list for each of its systems (the second one is in brackets)."""
    return [[float(number) for number in re.findall(r"[\d.]+", part)]
            for part in cell.rstrip(")").split("(") if re.search(r"\d", part)]


@pytest.mark.parametrize("label", ROWS)
def test_the_table_of_the_front_page_is_the_committed_one(label):
    (row,) = [row for row in table(README, "| system | FID") if label in row["system"]]
    measured = {row["Counterpart here"]: row for row in table((RESULTS / "digits-table2.md").read_text(), "| Method")}
    base = float(measured["var-d30"]["KV (MiB)"].split("/")[0])
    for column, ours, digits in (("FID", "FID", 2), ("judge accuracy", "Judge accuracy", 3), ("speedup", "Speedup", 2)):
        found = [[round(float(number), digits) for number in re.findall(r"[\d.]+", measured[name][ours].split("/")[0])]
                 for name in ROWS[label]]
        wanted = shown(row[column])
        assert wanted == found[:len(wanted)] and (wanted or found == [[]]), column
    kv = row["KV cache"]
    if re.search(r"\d", kv):
        assert float(kv) == round(float(measured[ROWS[label][0]]["KV (MiB)"].split("/")[0]) / base, 2)


def test_the_counts_of_verdicts_are_the_committed_ones():
    claims = (RESULTS / "claims.md").read_text()
    count = {row["Verdict"]: int(row["Claims"]) for row in table(claims, "| Verdict")}
    total = int(re.search(r"(\d+) claims", claims).group(1))
    rankings = sum(number for verdict, number in count.items() if "miniature" in verdict)
    said = re.search(r"each of (\d+) printed.*?(\d+) are contradicted.*?(\d+) hold by.*?(\d+) follow from.*?(\d+) "
                     r"rankings are tested.*?(\d+) are open", README, re.DOTALL)
    assert sum(count.values()) == total
    assert list(map(int, said.groups())) == [total, count["contradicts"], count["holds"], count["consistent"], rankings,
                                             count["open"]]
    assert f"The {total} claims that we list" in (ROOT / "docs/findings.md").read_text()


@pytest.mark.parametrize("page", sorted(path.relative_to(ROOT).as_posix() for path in
                                        (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))))
def test_links_and_names_of_files_lead_somewhere(page):
    text = (ROOT / page).read_text()
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if not link.startswith("http")]
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []
    named = re.findall(r"`((?:varient|baselines|tests|benchmarks|workflow|docs)/[\w./-]+)`", text)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_front_page_is_short():
    assert len(README.splitlines()) <= 120
