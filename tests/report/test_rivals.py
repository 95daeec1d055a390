"""The table of rivals: rows, conversions of published sizes, changes, the front; and the file of published numbers."""

import math
import re

import pytest
from conftest import ROOT
from matplotlib import pyplot as plt
from pydantic import ValidationError
from record_factory import profile, score

from varient.config import load_config
from varient.cost.roofline import MIB, system_cost
from varient.paper.rivals import PrintedMemory, parse, rivals
from varient.report.figures import figure_needs, render
from varient.report.figures.rivals import draw_rivals, published_points
from varient.report.rivals import needs_of_rivals, rivals_table, write_rivals
from varient.report.style import styled
from varient.results import Results
from varient.systems.ids import VarId
from varient.systems.registry import resolve_system

DIGITS = load_config(ROOT / "workflow/config/digits.yaml")
PAPER = load_config(ROOT / "workflow/config/imagenet256.yaml")
NOTHING = Results({}, {})


def _results(*points):
    """Records of (system, FID, MiB of the cache)."""
    return Results({name: score(name, fid) for name, fid, _ in points},
                   {name: profile(name, [0.5], memory={"tensors_mib": 1.0, "kv_cache_mib": mib})
                    for name, _, mib in points})


RESULTS = _results(("var-d30", 0.7, 20.0), ("variant-d16", 0.65, 11.0), ("var-d30-w1", 0.9, 8.0),
                   ("var-d30-kv8", 0.71, 11.5), ("var-d30-w1-c0", 5.0, 8.0), ("free-d16", 7.0, 11.0),
                   ("free-d16-prefix", 9.0, 11.0), ("var-d30-gmap", 0.75, 15.0), ("var-d30-g6", 0.6, 10.0))


def _rows(config, results=NOTHING):
    return rivals_table(config, results).set_index("system")


def test_every_row_of_the_config_is_described_and_every_described_system_is_a_row():
    described = {rival.id for rival in rivals() if rival.id}
    assert {resolve_system(name, DIGITS).published_as for name in DIGITS.rivals} == described
    frame = rivals_table(DIGITS, NOTHING)
    assert len(frame) == len(set(frame["system"]) - {""}) + sum(rival.id is None for rival in rivals())
    assert described | {"var-d30", "variant-d16", "code-n6"} <= set(frame["system"])


def test_systems_here_differ_from_what_is_published_by_name():
    """Each id stands for the cache or the layers that its entry says."""
    for rival in rivals():
        if rival.id:
            found = VarId.parse(rival.id)
            assert found is not None and (found.kind == "free" or not found.kv.is_plain)
            assert (rival.training == "supernet") == found.of_supernet


def test_nothing_is_measured_for_an_experiment_without_rivals():
    assert PAPER.rivals == () and needs_of_rivals(PAPER).score == ()
    needed = needs_of_rivals(DIGITS)
    assert needed.score == needed.profile
    assert set(DIGITS.rivals) | {"var-d30", "variant-d2", "code-n6"} <= set(needed.score)
    assert "dit-mini" not in needed.score


@pytest.mark.parametrize("config", [DIGITS, PAPER])
def test_the_papers_size_is_counted_without_records(config):
    rows = _rows(config)
    for name, mib in {"var-d30": 12165.0, "var-d30-w1": 5133.8, "var-d30-kv6": 4752.0, "variant-d8": 3420.0,
                      "var-d30-gmap": 9123.8, "var-d30-g6": 6082.5}.items():
        assert (rows.loc[name, "kv_mib"], rows.loc[name, "kv_mib_source"]) == (f"{mib:.1f}", "arithmetic")
    cost, full = system_cost("variant-d8-w1"), system_cost("var-d30")
    assert rows.loc["variant-d8-w1", "latency_s"] == f"{cost.latency_s:.2f}"
    assert rows.loc["variant-d8-w1", "speedup"] == f"{full.latency_s / cost.latency_s:.2f}"
    assert "fid" not in rows


def test_published_sizes_are_in_one_convention():
    """28687.5 MiB of all entries at 6 bytes are 19125 at 4; VARiant's printed 9465 at 6 bytes are 6310."""
    rows = _rows(PAPER)
    assert rows.loc["variant-d8", "published_kv_mib"] == "6310.0 (9465 MB)"
    assert rows.loc["var-d30-w1", "published_kv_mib"].startswith("4781.2 (75 % cut, unverified)")
    assert PrintedMemory(printed="x", share=0.5).shown_mib(19125.0) == 9562.5
    assert PrintedMemory(printed="x", mib=5440, pair_bytes=8, depth=16, batch_size=32).shown_mib(0.0) == 5440.0
    all_entries = system_cost("var-d30", policy="reference").kv_cache_bytes / MIB
    assert PrintedMemory(printed="x", mib=all_entries, pair_bytes=6).shown_mib(0.0) == 19125.0


def test_numbers_known_from_a_third_party_say_so():
    rows = rivals_table(PAPER, NOTHING).set_index("method")
    for method in ("budgets by head, 50 %", "Markov-VAR", "scale window without coarse scales"):
        assert "unverified)" in rows.loc[method, "published"]
    for method in ("FPQVAR", "MVAR", "int6 cache", "VARiant-d16"):
        assert "unverified" not in rows.loc[method, "published"]
    for method in ("scale window, W = 1", "scale window without coarse scales", "VAR itself, all entries"):
        assert "unverified)" in rows.loc[method, "published_kv_mib"]
    kv = rows.loc["scale window by layer, W = 1 or 3", "published_kv_mib"]
    assert kv == "4781.2 (75 % cut, unverified); 4069.8 (78.72 % cut); 2901.3 (84.83 % cut at most)"


def test_what_is_known_without_a_fid_is_shown_too():
    rows = rivals_table(PAPER, NOTHING).set_index("method")
    assert "FID changes by -.02 to +.06 (AMS-KV, d30)" in rows.loc["scale window by layer, W = 1 or 3", "published"]
    assert rows.loc["VAR itself, all entries", "published"] == ""


def test_each_convention_in_print_is_converted():
    """6 bytes and 50 images of VAR-d30 (AMS-KV), 8 bytes and 32 images of three smaller ones (MVAR)."""
    rows = rivals_table(PAPER, NOTHING).set_index("method")
    assert rows.loc["VAR itself, all entries", "published_kv_mib"] == (
        "19123.2 (22.41 GB, unverified); 5440.0 (VAR-d16 5440 MB); 8500.0 (VAR-d20 8500 MB); "
        "12240.0 (VAR-d24 12240 MB)")
    for depth, mib in ((16, 5440), (20, 8500), (24, 12240)):
        assert system_cost(f"var-d{depth}", policy="reference").kv_cache_bytes / MIB == pytest.approx(mib * 6 / 4)


def test_changes_are_those_against_the_same_weights_and_depths():
    rows = _rows(DIGITS, RESULTS)
    assert rows.loc["var-d30-w1", ["fid", "fid_change"]].tolist() == ["0.900", "+0.200"]
    assert rows.loc["var-d30-w1", "fid_change_pm"] == f"{1.96 * math.hypot(0.02, 0.02):.3f}"
    assert rows.loc["free-d16-prefix", "fid_change"] == "+2.000"
    assert rows.loc["var-d30-gmap", "fid_change"] == "+0.050" and rows.loc["var-d30-g6", "fid_change"] == "-0.100"
    for name in ("var-d30", "variant-d16", "free-d16", "variant-d8-w1"):  # nothing to compare with, or no record
        assert rows.loc[name, "fid_change"] == ""


def test_the_front_has_what_no_other_beats():
    rows = _rows(DIGITS, RESULTS)
    assert set(rows.index[rows["front"] == "yes"]) == {"var-d30-g6", "var-d30-w1"}


def test_files_and_notes(tmp_path):
    paths = write_rivals(DIGITS, RESULTS, tmp_path / "rivals")
    assert [path.suffix for path in paths] == [".csv", ".md", ".tex"]
    text = paths[1].read_text()
    assert "score of variant-d8," in text and "docs/rivals.md" in text
    assert "| 0.900 ± 0.039 | +0.200 ± 0.055 |" in text
    assert paths[2].read_text().count(r"\\") == len(rivals_table(DIGITS, RESULTS)) + 1


# -- the figure --------------------------------------------------------------------------------------------------------

def test_the_figure_shows_measured_points_their_front_and_published_ones(tmp_path):
    with styled():
        figure = draw_rivals(DIGITS, RESULTS, tmp_path)
    measured, published = figure.axes
    drawn = {(float(x), float(y)) for line in measured.lines for x, y in line.get_xydata()}
    assert {(20.0, 0.7), (11.0, 0.65), (8.0, 0.9), (8.0, 5.0)} <= drawn
    assert [8.0, 0.9] in measured.lines[0].get_xydata().tolist()  # the front comes first
    assert {"d30", "d16", "d30 w1", "d30 w1 c0", "d30 kv8"} <= {text.get_text() for text in measured.texts}
    hollow = {"AMS-KV, window by layer", "HACK, 50 % kept"}
    points = {point.name: point for point in published_points()}
    assert {name for name, point in points.items() if not point.verified} >= hollow
    assert points["variant-d8"] == ("variant-d8", 6310.0, 2.12, True)
    assert len(published.lines) == len(points)
    plt.close(figure)


def test_the_figure_needs_what_it_shows_and_names_what_is_missing(tmp_path):
    assert set(DIGITS.rivals) <= set(figure_needs("rivals", DIGITS).score)
    assert set(figure_needs("rivals", PAPER).score) == {"var-d30", *(f"variant-d{d}" for d in (16, 8, 4, 2)), "code-n6",
                                                        "free-code-n6"}
    paths = render("rivals", PAPER, NOTHING, tmp_path, tmp_path / "rivals")
    assert all(path.stat().st_size > 1000 for path in paths)


# -- the file ----------------------------------------------------------------------------------------------------------

ENTRY = """
- id: {id}
  method: m
  published_as: m
  training: none
  ours: {ours}
  numbers:
  - {{source: s, seen_in: original, {number}}}
"""


@pytest.mark.parametrize(("changes", "named"), [
    ({"number": "note: n"}, "neither a FID nor a size"), ({"ours": "null"}, "both or neither"),
    ({"number": "kv: {printed: p}"}, "needs either"), ({"number": "kv: {printed: p, mib: 3}"}, "needs either"),
    ({"number": "kv: {printed: p, share: 0.5, mib: 3, pair_bytes: 6}"}, "needs either"),
    ({"number": "kv: {printed: p, mib: 3, pair_bytes: 5}"}, "pair_bytes"), ({"number": "fid: 2.0"}, "fid"),
    ({"number": "fid: '2.0', other: 1"}, "other")])
def test_a_damaged_entry_is_refused(changes, named):
    good = {"id": "var-d30-w1", "ours": "o", "number": "fid: '2.0'"}
    assert parse(ENTRY.format(**good))[0].numbers[0].fid == "2.0"
    with pytest.raises(ValidationError, match=re.escape(named)):
        parse(ENTRY.format(**good | changes))


def test_a_system_has_one_entry():
    entry = ENTRY.format(id="var-d30-w1", ours="o", number="fid: '2.0'")
    with pytest.raises(ValueError, match="two entries for var-d30-w1"):
        parse(entry * 2)
