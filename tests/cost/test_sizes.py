import pytest

from varient.cost.sizes import parse_size


@pytest.mark.parametrize(("text", "size_bytes"), [
    ("48GiB", 48 * 2 ** 30), ("48GB", 48 * 10 ** 9), ("512MiB", 2 ** 29), ("1.5 GB", 1_500_000_000), ("1MB", 10 ** 6)])
def test_sizes(text, size_bytes):
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "48", "48G", "GiB", "-1GiB", "0GiB", "0.0000001MB", "48gib", "48GiB ", "1e3MB",
                                  "1,5GB", "48  GiB", "٤٨GB", "48GiB/2", "nanGiB", "infGiB",
                                  "9" * 400 + "GiB", "9" * 30 + "GiB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match=r"is not understood.*MiB, GiB, e\.g\. 48GiB"):
        parse_size(text)
