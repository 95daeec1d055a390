"""The numbers of the front page and of the page of rivals are those of the committed results."""

import json
import re

import pytest
from committed_results import rows
from conftest import ROOT

from varient.claims.arithmetic import kv_mb
from varient.config import load_config
from varient.cost.kv_accounting import cache_steps, kv_peak_bytes, passes
from varient.paper import paper_rows, system_id
from varient.plan import DepthPlan
from varient.pyramid import VAR_256

README = (ROOT / "README.md").read_text()
RESULTS = ROOT / "docs/results"
ROWS = {"VAR, 30 layers": ["var-d30"], "VARiant d = 16": ["variant-d16"], "VARiant d = 8": ["variant-d8"],
        "VARiant d = 4": ["variant-d4"], "VARiant d = 2": ["variant-d2"], "CoDe": ["code-n6", "free-code-n6"],
        "DiT": ["dit-mini", "dit-mini-250"], "LlamaGen": ["llamagen-mini"], "real images": ["real-holdout"]}
CLOTHES = ROWS | {"DiT": ["dit-mini"], "real images": ["real-test"]}


def shown(cell: str) -> list[list[float]]:
    """The numbers of a front-page cell, one list for each of its systems (the second one is in brackets)."""
    return [[float(number) for number in re.findall(r"[\d.]+", part)]
            for part in cell.rstrip(")").split("(") if re.search(r"\d", part)]


def _is_measured(row, experiment, systems, columns):
    """Holds cells to the committed table of an experiment, and returns its rows by system."""
    measured = {row["Counterpart here"]: row
                for row in rows((RESULTS / f"{experiment}-table2.md").read_text(), "| Method")}
    for column, ours, digits in columns:
        found = [[round(float(number), digits) for number in re.findall(r"[\d.]+", measured[name][ours].split("/")[0])]
                 for name in systems]
        wanted = shown(row[column])
        assert wanted == found[:len(wanted)] and (wanted or found[0] == []), column
    return measured


@pytest.mark.parametrize("label", ROWS)
def test_the_table_of_the_front_page_is_the_committed_one(label):
    (row,) = [row for row in rows(README, "| system | FID") if label in row["system"]]
    compared = (("FID over VAR's", "FID over VAR's", 2), ("judge accuracy", "Judge accuracy", 3),
                ("speedup", "Speedup", 2))
    _is_measured(row, "fashion", CLOTHES[label], [(f"{column}, clothes", *ours) for column, *ours in compared])
    measured = _is_measured(row, "digits", ROWS[label], [
        *compared, ("FID", "FID", 3), ("token-layers", "Token-layers, VAR's over own", 2)])
    base = float(measured["var-d30"]["KV (MiB)"].split("/")[0])
    for column, papers in (("paper: FID over VAR's", "FID over VAR's"), ("paper: speedup", "Speedup")):
        assert row[column] == measured[ROWS[label][0]][papers].split("/")[1].strip(" –").replace("\\", ""), column
    kv = row["KV cache"]
    if re.search(r"\d", kv):
        assert float(kv) == round(float(measured[ROWS[label][0]]["KV (MiB)"].split("/")[0]) / base, 2)


@pytest.mark.parametrize(("label", "system"), [
    ("d = 16", "variant-d16"), ("d = 8", "variant-d8"), ("d = 4", "variant-d4"), ("d = 2", "variant-d2"),
    ("CoDe", "code-n6")])
def test_the_papers_caches_are_its_cells_and_those_of_its_formula(label, system):
    """Where both are shown, the cells are contradicted."""
    (row,) = [row for row in rows(README, "| system | FID") if label in row["system"]]
    cells = {system_id(cells["method"]): cells["kv_cache_mb"] for cells in paper_rows("table2")}
    printed, *formula = re.findall(r"\d\.\d+", row["paper: KV cache"])
    assert printed == f"{float(cells[system]) / float(cells['var-d30']):.2f}"
    exact = kv_mb(system) / kv_mb("var-d30")
    assert formula == ([f"{exact:.2f}"] if f"{exact:.2f}" != printed else [])


def test_what_is_said_of_the_lean_cache_is_counted():
    """Entries, and with the copies of one layer."""
    ratios = []
    for depth in (30, 16, 8, 4, 2):
        plan = DepthPlan.bridge(30, depth, 6, 10)
        entries, copies = {}, {}
        for policy, key_bytes, value_bytes in (("reference", 4, 2), ("lean", 2, 2)):
            entries[policy] = kv_peak_bytes(plan, VAR_256, 128, 1920, policy, key_bytes, value_bytes)
            copied = max(step.scratch for step in cache_steps(passes(plan, VAR_256), policy))
            copies[policy] = 128 * 1920 * (key_bytes + value_bytes) * copied
        lean = entries["lean"] + copies["lean"]
        ratios.append((entries["reference"] / entries["lean"], entries["reference"] / lean,
                       (entries["reference"] + copies["reference"]) / lean))
    ends = [f"{min(found):.1f} to {max(found):.1f}" for found in zip(*ratios, strict=True)]
    text = " ".join(README.split())
    assert f"{ends[0]} times smaller" in text and f"it is {ends[1]} times, and {ends[2]} with the copies" in text


RIVALS = (ROOT / "docs/rivals.md").read_text()


def test_the_rivals_page_has_the_committed_table():
    measured = {row["System"]: row for row in rows((RESULTS / "digits-rivals.md").read_text(), "| Method")}
    told = {row["system"].strip("`"): row for row in rows(RIVALS, "| system | FID | change")}
    rivals = load_config(ROOT / "workflow/config/digits.yaml").rivals
    assert set(told) >= {"var-d30", *rivals}
    for name, row in told.items():
        ours, full = measured[name], name == "var-d30"
        assert row["FID"] == ours["FID"] and row["change"] == ours["Change of FID"].strip("–"), name
        star, ssim, equal = (ours[column].split(" ")[0] for column in ("FID\\*", "SSIM to VAR's", "Equal tokens"))
        wanted = ["0", "1", "0"] if full else [star, f"{float(ssim):.3f}", f"{100 * (1 - float(equal)):.1f} %"]
        assert [row[column] for column in ("FID\\*", "SSIM", "tokens that differ")] == wanted, name


def test_the_rivals_page_counts_pairs_as_the_committed_table_does():
    pattern = r"orders (\d+) of (\d+) pairs .*?, (\d+) of them .*? SSIM orders (\d+) of \d+ pairs .*?, (\d+) of them"
    found = re.search(pattern, (RESULTS / "digits-rivals.md").read_text())
    star, pairs, star_beyond, ssim, ssim_beyond = found.groups()
    assert (f"of {pairs} pairs of rows FID* turns {star} and SSIM {ssim}; in {star_beyond} and {ssim_beyond} of them"
            in " ".join(RIVALS.split()))


@pytest.mark.parametrize(("label", "name"), [("1, eleven turns", "windows-b1"), ("1, five turns", "kv-b1"),
                                             ("4, two turns", "kv-b4")])
def test_the_rivals_page_has_the_times_of_the_records(label, name):
    record = json.loads((ROOT / f"benchmarks/records/cpu-d30-w1024-{name}.json").read_text())
    plans = {"W = 1": "var-d30-w1", "W = 2": "var-d30-w2", "int8": "var-d30-kv8", "one map": "var-d30-gmap"}
    times = {row["plan"]: row for row in record["rows"] if row["cache"] == "lean"}
    (told,) = [row for row in rows(RIVALS, "| batch | all") if row["batch"] == label]
    assert label.startswith(f"{record['batch']},")
    repeats = times["full"]["latency_repeats_s"]
    assert told["all"] == (f"{min(repeats):.1f} to {max(repeats):.1f} s, {times['full']['share_of_peak']:.0%}"
                           .replace("%", " %"))
    for column, plan in plans.items():
        if told[column]:
            ours = times[plan]
            assert told[column] == f"{ours['ratio_to_full']:.2f}, {100 * ours['share_of_peak']:.0f} %", column


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
