"""Columns of fidelity in Table 2 and in the table of rivals, and the figure of pairs."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT
from matplotlib import pyplot as plt
from record_factory import fidelity, profile, score

from varient.archive import Archive, write_archive
from varient.config import load_config
from varient.records import write_record
from varient.report.fidelity_columns import fidelity_notes
from varient.report.figures import figure_needs
from varient.report.figures.pairs import draw_pairs
from varient.report.rivals import needs_of_rivals, rivals_table, write_rivals
from varient.report.style import styled
from varient.report.table2 import needs_of_table2, table2
from varient.report.tables import render
from varient.results import Results, comparable

DIGITS = load_config(ROOT / "workflow/config/digits.yaml")
FIDELITY = (fidelity("base", "var-d30", "var-d30-kv8"), fidelity("supernet-d16", "variant-d16", fid=0.25))
SCORES = {name: score(name, fid) for name, fid in (("var-d30", 0.5), ("variant-d16", 0.6), ("var-d30-kv8", 0.7))}
RESULTS = Results(SCORES, {"var-d30": profile("var-d30", [0.4])}, fidelity=FIDELITY)
COLUMNS = ["psnr_db", "ssim", "same_class", "fid_star", "equal_tokens"]


@pytest.mark.parametrize("build", [table2, rivals_table])
def test_every_row_of_var_has_its_fidelity(build):
    rows = build(DIGITS, RESULTS).set_index("system")
    assert rows.loc["variant-d16", COLUMNS].tolist() == ["12.35", "0.6123", "0.900", "0.250", "0.750"]
    assert rows.loc["variant-d16", "psnr_db_pm"] == "0.20" and rows.loc["variant-d16", "fid_star_pm"] == "0.020"
    assert rows.loc["variant-d16", "ssim_source"] == "measured (digits)"
    assert rows.loc["var-d30", COLUMNS].tolist() == ["∞", "1.0000", "1.000", "0.000", "1.000"]
    assert rows.loc["var-d30", "psnr_db_pm"] == "" and rows.loc["variant-d8", COLUMNS].tolist() == [""] * 5
    assert "lpips" not in rows
    assert not set(COLUMNS) & set(build(DIGITS, Results(SCORES, {})).columns)


def test_lpips_has_a_column_where_its_weights_were_given():
    results = Results({}, {}, fidelity=(fidelity("supernet-d16", "variant-d16", lpips=0.25, lpips_sd=0.001),))
    row = table2(DIGITS, results).set_index("system").loc["variant-d16"]
    assert (row["lpips"], row["lpips_pm"]) == ("0.2500", "0.0020")


def test_what_is_needed_is_every_row_of_var_and_no_other():
    assert needs_of_table2(DIGITS).fidelity == ("var-d30", "variant-d16", "variant-d8", "variant-d4", "variant-d2")
    assert set(needs_of_rivals(DIGITS).fidelity) == set(needs_of_rivals(DIGITS).score) - {"code-n6", "free-code-n6"}
    assert figure_needs("fidelity", DIGITS).fidelity == tuple(f"variant-d{depth}" for depth in (16, 8, 4, 2))


def test_the_notes_say_what_is_compared_what_is_missing_and_whether_the_ranks_agree(tmp_path):
    for text in (render(2, DIGITS, RESULTS, tmp_path / "table")[1].read_text(),
                 write_rivals(DIGITS, RESULTS, tmp_path / "rivals")[1].read_text()):
        text = text.replace("\\", "")  # Markdown's, before asterisks
        assert "that var-d30 draws from the same seed" in text and "2000 pairs" in text and "7 pixels" in text
        assert "fidelity of variant-d8" in text
        assert "2 systems with both" in text and "FID* orders them as FID does" in text
        assert "| ∞ | 1.0000 ± 0.0000 |" in text and "| 12.35 ± 0.20 | 0.6123 ± 0.0196 |" in text
    swapped = Results(SCORES | {"variant-d16": score("variant-d16", 0.8)}, {}, fidelity=FIDELITY)
    assert "FID* orders 1 of 1 pairs of them the other way round than FID, 1 of them with" in " ".join(
        fidelity_notes(swapped))
    vague = replace(swapped, scores={name: found.model_copy(update={"fid_sd": 1.0}) for name, found in
                                     swapped.scores.items()})
    assert "FID* orders 1 of 1 pairs of them the other way round than FID, 0 of them with" in " ".join(
        fidelity_notes(vague))
    assert list(fidelity_notes(Results(SCORES, {}))) == []


def test_records_of_another_run_or_to_other_pictures_are_left_out_and_named():
    others = (fidelity("supernet-d8", "variant-d8", experiment="fashion"),
              fidelity("supernet-d4", "variant-d4", reference_sha256="cd"))
    kept = comparable("digits", Results({}, {}, fidelity=(*FIDELITY, *others)))
    assert set(kept.fidelities) == {"var-d30", "var-d30-kv8", "variant-d16"}
    assert len(kept.remarks) == 2 and "supernet-d8" in kept.remarks[0] and "supernet-d4" in kept.remarks[1]


def test_records_in_a_run_folder_are_found(tmp_path):
    for record in FIDELITY:
        write_record(tmp_path / f"records/fidelity-{record.network}.json", record)
    found = Results.found_in(tmp_path)
    assert set(found.fidelities) == {"var-d30", "var-d30-kv8", "variant-d16"} and not found.remarks


def test_the_figure_shows_three_pairs_of_each_subnet(tmp_path):
    images = {name: np.random.default_rng(at).integers(0, 256, (3, 3, 8, 8), np.uint8)
              for at, name in enumerate(("var-d30", "variant-d16"))}
    for name, pixels in images.items():
        write_archive(tmp_path / f"samples/{name}/shard-0.npz",
                      Archive(pixels, np.arange(3), np.arange(3), {"system": name}))
    with styled():
        figure = draw_pairs(DIGITS, RESULTS, tmp_path)
    drawn = [image.get_array() for image in figure.axes[0].images]
    expected = [images[name][at].transpose(1, 2, 0) for at in range(3) for name in ("var-d30", "variant-d16")]
    assert len(drawn) == 6 and all(np.array_equal(ours, theirs) for ours, theirs in zip(drawn, expected, strict=True))
    texts = [text.get_text() for axis in (*figure.axes, *figure.axes[0].child_axes) for text in axis.texts]
    assert {"image 0, PSNR 30.0 dB", "image 1, PSNR 12.5 dB", "image 2, PSNR 8.0 dB"} <= set(texts)
    assert any("fidelity of variant-d8" in text for text in texts)
    plt.close(figure)
