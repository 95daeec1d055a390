import pytest

from varient.paper import paper_table
from varient.report.table3 import BLOCKS, table3


@pytest.fixture(scope="module")
def blocks():
    frame = table3()
    return [frame[frame["block"] == block.title].reset_index(drop=True) for block in BLOCKS]


def test_every_block_has_the_papers_rows(blocks):
    for block in blocks:
        assert block["method"].tolist() == paper_table(3)["method"].tolist()


def test_kv_cells_are_the_papers_but_for_two_slips_of_1000(blocks):
    for _, row in blocks[0].iterrows():
        if row["kv_cache_mb_paper"] != "OOM":
            missing = float(row["kv_cache_mb"]) - float(row["kv_cache_mb_paper"])
            slipped = row["batch_size"] == 64 and row["method"] in ("VARiant-d16", "VARiant-d8")
            assert missing == pytest.approx(1000 if slipped else 0, abs=0.7)
            assert ("1000 below" in row["note"]) == slipped


def test_the_oom_pattern_is_the_papers_but_for_one_decode_that_cannot_fit(blocks):
    differing = blocks[0][(blocks[0]["total_mb"] == "OOM") != (blocks[0]["total_mb_paper"] == "OOM")]
    assert differing[["batch_size", "method"]].values.tolist() == [[256, "VARiant-d2"]]
    assert "cannot hold a decode of the whole batch" in differing.iloc[0]["note"]


def test_the_lean_cache_fits_larger_batches(blocks):
    for reference, lean, half in zip(*(block.itertuples() for block in blocks), strict=True):
        assert reference.largest_batch_48gb < lean.largest_batch_48gb < half.largest_batch_48gb
        assert float(lean.kv_cache_mb) < 0.45 * float(reference.kv_cache_mb)
        assert lean.kv_cache_mb_paper == ""


def test_the_largest_batch_is_the_largest(blocks):
    block = BLOCKS[1]
    largest = block.largest_batch("variant-d8", 46068)
    assert block.total_mib("variant-d8", largest) <= 46068 < block.total_mib("variant-d8", largest + 1)
