"""The first page of the report, and the summary."""

from html import escape

import pytest
from docutils.core import publish_string

from varient.claims import Verdict
from varient.report.opening import write_opening

CLAIMS = """id,where,claim,printed,verdict,found,evidence,source,command
a,Table 2,VARiant-d16: KV cache,16092,contradicts,17091.6 MB,the formula gives 17091.6,arithmetic,varient cost
b,Table 3,"VARiant-d16, batch 64: KV cache",16092,contradicts,17091.6 MB,the formula gives 17091.6,arithmetic,varient
c,Table 1,early {is} *worse* than late_,,not resolved in miniature,,0.1 | 0.2 {braces} *stars* a_,measured (digits),x
d,Table 4,FID,2.05,open,,,,
e,text,FID of d8,2.15,contradicts,2.12,Different value,paper,cat
f,text,speedup,1.7x,consistent,1.71 x,Follows,paper,cat
"""
TABLE2 = "method,system,fid,fid_pm,latency_s\nVAR-d30,var-d30,0.666,0.057,0.4\nreal images,real,0.1,,\n"


@pytest.fixture
def pages(tmp_path):
    (tmp_path / "claims.csv").write_text(CLAIMS)
    (tmp_path / "table2.csv").write_text(TABLE2)
    paths = tmp_path / "opening.rst", tmp_path / "summary.html"
    write_opening(tmp_path / "claims.csv", tmp_path / "table2.csv", *paths)
    return [path.read_text() for path in paths]


def test_the_first_page_is_short_and_has_each_error_once(pages):
    page = publish_string(pages[0], writer="html", settings_overrides={"halt_level": 2}).decode()
    assert "contradicts: 3, not resolved in miniature: 1, consistent: 1, open: 1" in page
    assert page.count("16092 (17091.6 MB)") == 1  # printed in two tables
    assert "early (is) *worse* than late_" in page and "2.15" not in page


def test_both_pages_take_headings_and_meanings_from_the_verdicts(pages):
    for verdict in (Verdict.CONTRADICTS, Verdict.NOT_RESOLVED, Verdict.CONSISTENT, Verdict.OPEN):
        assert f"* *{verdict}*: {verdict.meaning}." in pages[0] and escape(verdict.meaning, quote=False) in pages[1]
    assert f"**{Verdict.NOT_RESOLVED.heading} (1):**" in pages[0]
    assert f"<h2>{Verdict.NOT_RESOLVED.heading}</h2>" in pages[1] and Verdict.HOLDS.meaning not in "".join(pages)


def test_the_summary_has_the_evidence_and_the_systems(pages):
    assert pages[1].count("the formula gives 17091.6") == 1 and "Table 2; Table 3" in pages[1]
    assert "0.1 | 0.2 (braces) *stars* a_" in pages[1] and "0.666 ± 0.057" in pages[1]
    assert Verdict.REVERSED.heading not in pages[1]  # nothing of the kind


def test_other_files_are_refused(tmp_path):
    for name in ("claims.csv", "table2.csv"):
        (tmp_path / name).write_text("x\n1\n")
    with pytest.raises(ValueError, match="claims.csv: has no column evidence, found, id, source, verdict"):
        write_opening(tmp_path / "claims.csv", tmp_path / "table2.csv", tmp_path / "o.rst", tmp_path / "s.html")
    for content in (b"", b"\xff\xfe", b'"'):
        (tmp_path / "claims.csv").write_bytes(content)
        with pytest.raises(ValueError, match=r"claims.csv: no table that can be read \("):
            write_opening(tmp_path / "claims.csv", tmp_path / "table2.csv", tmp_path / "o.rst", tmp_path / "s.html")
    with pytest.raises(ValueError, match="no table that can be read .*Is a directory"):
        write_opening(tmp_path, tmp_path / "table2.csv", tmp_path / "o.rst", tmp_path / "s.html")
    assert not (tmp_path / "o.rst").exists()
