"""The first page of the report."""

import pytest
from docutils.core import publish_string

from varient.report.opening import write_opening

CLAIMS = """id,where,claim,printed,verdict,found,evidence,source,command
a,Table 2,KV of d16,16092,contradicts,17091.6,the formula gives 17091.6,arithmetic,varient cost
b,Table 3,KV of d16,16092,contradicts,17091.6,the formula gives 17091.6,arithmetic,varient cost
c,Table 1,early > mid > late,,not resolved in miniature,,0.1 | 0.2 {braces} *stars* a_,measured (digits),snakemake
d,Table 4,FID,2.05,open,,,,
"""
TABLE2 = "method,system,fid,fid_pm,latency_s\nVAR-d30,var-d30,0.666,0.057,0.4\nreal images,real,0.1,,\n"


@pytest.fixture
def page(tmp_path):
    (tmp_path / "claims.csv").write_text(CLAIMS)
    (tmp_path / "table2.csv").write_text(TABLE2)
    write_opening(tmp_path / "claims.csv", tmp_path / "table2.csv", tmp_path / "opening.rst")
    return (tmp_path / "opening.rst").read_text()


def test_it_counts_verdicts_and_groups_cells_with_one_evidence(page):
    assert "   * - contradicts\n     - 2" in page and "   * - open\n     - 1" in page
    assert page.count("the formula gives 17091.6") == 1 and "Table 2; Table 3" in page
    assert "What the miniature shows\n" not in page  # nothing was


def test_it_is_sound_rst_that_shows_its_text_as_it_is(page):
    html = publish_string(page, writer="html", settings_overrides={"halt_level": 2}).decode()
    assert "0.1 | 0.2 (braces) *stars* a_" in html
    assert "0.666 ± 0.057" in html


def test_other_files_are_refused(tmp_path):
    for name in ("claims.csv", "table2.csv"):
        (tmp_path / name).write_text("x\n1\n")
    with pytest.raises(ValueError, match="claims.csv: has no column evidence, id, verdict"):
        write_opening(tmp_path / "claims.csv", tmp_path / "table2.csv", tmp_path / "opening.rst")
    assert not (tmp_path / "opening.rst").exists()
