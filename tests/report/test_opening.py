"""The first page of the report, and the summary."""

import base64
import csv
import re
from html import unescape
from html.parser import HTMLParser

import jinja2
import pytest
from conftest import ROOT
from docutils.core import publish_string

from varient.claims import Verdict
from varient.report.opening import write_opening

CLAIMS = """id,where,claim,printed,verdict,found,evidence,source,command,kind,finding
a,Table 2,VARiant-d16: KV cache,16092,contradicts,17091.6 MB,the formula gives 17091.6,arithmetic,varient cost,cell,kv
b,Table 3,"VARiant-d16, batch 64: KV",16092,contradicts,17091.6 MB,the formula gives 17091.6,arithmetic,varient,cell,kv
c,Table 1,early {is} *worse* than late_,,not resolved in miniature,,0.1 | 0.2 {braces} *stars* a_,measured,x,ranking,c
d,Table 4,FID,2.05,open,,,paper,snakemake x.csv,cell,d
e,text,FID of d8,2.15,contradicts,2.12,Different value,paper,cat,text,e
f,text,speedup,1.7x,consistent,1.71 x,Follows,paper,cat,text,f
"""
PICTURE = ROOT / "docs/results/quality-cost.png"
TABLE2 = "method,system,fid,fid_pm,latency_s\nVAR-d30,var-d30,0.666,0.057,0.4\nreal images,real,0.1,,\n"


@pytest.fixture
def pages(tmp_path):
    (tmp_path / "claims.csv").write_text(CLAIMS)
    (tmp_path / "table2.csv").write_text(TABLE2)
    paths = tmp_path / "opening.rst", tmp_path / "summary.html"
    write_opening(tmp_path / "claims.csv", tmp_path / "table2.csv", PICTURE, *paths)
    return [_published(paths[0].read_text()), paths[1].read_text()]


def _write(folder, claims=None):
    write_opening(claims or folder / "claims.csv", folder / "table2.csv", PICTURE, folder / "o.rst", folder / "s.html")


def _published(page):
    """The first page as Snakemake makes HTML of it; whatever docutils stumbles over is an error here."""
    rendered = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(page).render()
    return publish_string(rendered, writer="html", settings_overrides={"halt_level": 2}).decode()


def _text(page):
    """What a page shows."""
    found = []
    parser = HTMLParser()
    parser.handle_data = found.append
    parser.feed(page.split("<body>")[-1])
    return " ".join("".join(found).split())


def test_the_first_page_is_short_and_has_each_discrepancy_once(pages):
    page = _text(pages[0])
    assert "5 findings in 6 places" in page and "Contradicted: 2 findings in 3 places" in page
    assert page.count("printed 16092, arithmetic: 17091.6 MB") == 1 and "Table 2; Table 3, VARiant-d16" in page
    assert "text, FID of d8: printed 2.15, other printed numbers: 2.12" in page
    assert "early {is} *worse* than late_" in page


def test_the_first_page_holds_a_copy_of_its_figure_before_the_systems(pages):
    [picture] = re.findall(r'<img [^>]*src="data:image/png;base64,([^"]*)"', pages[0])
    assert base64.b64decode(picture) == PICTURE.read_bytes()
    assert pages[0].index("<img") < pages[0].index("<table")


@pytest.mark.parametrize("content", [None, b"", b"<svg/>"])
def test_a_figure_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "claims.csv").write_text(CLAIMS)
    (tmp_path / "table2.csv").write_text(TABLE2)
    if content is not None:
        (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.png: "):
        write_opening(tmp_path / "claims.csv", tmp_path / "table2.csv", tmp_path / "x.png", tmp_path / "o.rst",
                      tmp_path / "s.html")
    assert not (tmp_path / "o.rst").exists()


def test_the_first_page_leads_with_the_systems_and_ends_with_what_is_open(pages):
    page = _text(pages[0])
    places = [page.index(text) for text in ("FID over VAR's", "0.666 ± 0.057", "Contradicted: 2 findings",
                                            "What would close them", "1 place in Table 4: snakemake x.csv")]
    assert places == sorted(places) and pages[0].count("<table") == 1


def test_both_pages_take_headings_and_meanings_from_the_verdicts(pages):
    texts = [_text(page) for page in pages]
    for verdict, tally in ((Verdict.CONTRADICTS, "2 findings in 3 places"),
                           (Verdict.NOT_RESOLVED, "1 finding in 1 place"),
                           (Verdict.CONSISTENT, "1 finding in 1 place"), (Verdict.OPEN, "1 finding in 1 place")):
        assert all(f"{verdict} ({tally}): {verdict.meaning}." in text for text in texts)
    assert f"<strong>{Verdict.NOT_RESOLVED.heading} (1 finding in 1 place):</strong>" in pages[0]
    assert f"<h2>{Verdict.NOT_RESOLVED.heading}</h2>" in pages[1] and Verdict.HOLDS.meaning not in "".join(texts)


def test_the_summary_has_the_evidence_and_the_systems(pages):
    text = _text(pages[1])
    assert text.count("the formula gives 17091.6") == 1 and "Table 2; Table 3" in text
    assert "0.1 | 0.2 {braces} *stars* a_" in text and "0.666 ± 0.057" in text
    assert Verdict.REVERSED.heading not in text  # nothing of the kind
    assert pages[1].count("<h1>") == 1 and "<td>–</td>" in pages[1]


HOSTILE = [
    ".. include:: /etc/passwd", ".. raw:: html", "a\n\n.. raw:: html\n   :file: /etc/passwd\n\nb", "a :math:`x`",
    "<script>alert(1)</script>", "</td></tr></table><h2>x</h2>", "&lt;b&gt; & <b>", "{{ 7 * 7 }}{% raw %}{# #}",
    "`x`_ |y| *z* **w** _`t` [1]_ http://x.org a@b.org", "\\", "x\\", "====", "- item", "• item", "1. item",
    ":field: x", "| line", ">>> 1", "+---+", "x::", "-a  option", "\"quoted\" 'text'", "$x$ ~ ^", "__",
    ".. |s| replace:: t", ".. _t: http://x.org", "__ http://x.org"]


@pytest.mark.parametrize(("verdict", "source"), [
    (Verdict.CONTRADICTS, "arithmetic"), (Verdict.SEEN, "measured (digits)")])
def test_whatever_a_claim_says_is_shown_as_text(tmp_path, verdict, source):
    for at in range(0, len(HOSTILE), 5):  # so many claims the first page names
        texts = HOSTILE[at:at + 5]
        with (tmp_path / "claims.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["where", "claim", "printed", "found", "evidence", "id", "finding", "command", "kind",
                             "verdict", "source"])
            writer.writerows([text] * 9 + [verdict, source] for text in texts)
        with (tmp_path / "table2.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["method", "fid"], *([text, text] for text in texts)])
        paths = tmp_path / "opening.rst", tmp_path / "summary.html"
        write_opening(tmp_path / "claims.csv", tmp_path / "table2.csv", PICTURE, *paths)
        first, summary = _published(paths[0].read_text()), paths[1].read_text()
        for text in (" ".join(text.split()) for text in texts):
            cells = [" ".join(cell.split()) for cell in map(_text, re.split(r"(?=<td>)", summary)[1:])]
            assert sum(cell.startswith(text) for cell in cells) >= 4 + 2, text  # of its claim and of its system
            in_list = f"{text}, {text}: printed {text}, {source}: {text}" if source == "arithmetic" else text
            assert in_list in _text(first)
        assert not re.search(r"<(script|b|a|code|math)\b|<h2>x", first + summary)
        assert (first.count("<img"), summary.count("<img")) == (1, 0)  # the figure
        assert "root:" not in unescape(first + summary)


def test_the_report_reads_no_file_into_a_page_and_takes_no_html_over(tmp_path, monkeypatch):
    """Whatever gets through: Snakemake's docutils reads the settings that the rule names."""
    rule = (ROOT / "workflow/rules/report.smk").read_text()
    assert "DOCUTILSCONFIG={input.docutils:q} python -m snakemake" in rule
    monkeypatch.setenv("DOCUTILSCONFIG", str(ROOT / re.search(r'docutils="(.*)"', rule)[1]))
    (tmp_path / "secret").write_text("secret words")
    for directive in (f".. include:: {tmp_path}/secret", f".. raw:: html\n   :file: {tmp_path}/secret",
                      ".. raw:: html\n\n   <b>secret words</b>", f".. csv-table::\n   :file: {tmp_path}/secret"):
        page = publish_string(f"text\n\n{directive}\n", writer="html", settings_overrides={"report_level": 5}).decode()
        assert "text" in page and "secret words" not in page


def test_a_verdict_that_there_is_not_is_refused(tmp_path):
    (tmp_path / "claims.csv").write_text(CLAIMS.replace(",open,", ",ajar,"))
    (tmp_path / "table2.csv").write_text(TABLE2)
    with pytest.raises(ValueError, match=r"claims.csv: .*'ajar'"):
        _write(tmp_path)


def test_other_files_are_refused(tmp_path):
    for name in ("claims.csv", "table2.csv"):
        (tmp_path / name).write_text("x\n1\n")
    with pytest.raises(ValueError, match="claims.csv: has no column claim, command, evidence, finding, found, id"):
        _write(tmp_path)
    for content in (b"", b"\xff\xfe", b'"', b'a"b"\n"x', b"\0\n\xff", CLAIMS.encode()[:-1]):
        (tmp_path / "claims.csv").write_bytes(content)
        with pytest.raises(ValueError, match=r"claims.csv: no table that can be read \("):
            _write(tmp_path)
    (tmp_path / "claims.csv").write_text(CLAIMS[:CLAIMS.index(",contradicts")] + "\n")
    with pytest.raises(ValueError, match="claims.csv: row 2 has 4 cells, expected 11"):
        _write(tmp_path)
    with pytest.raises(ValueError, match="no table that can be read .*Is a directory"):
        _write(tmp_path, tmp_path)
    assert not (tmp_path / "o.rst").exists()
