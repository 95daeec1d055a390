"""What others published: the file is sound, and agrees with our formulas and with the paper's own tables."""

import re
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT
from pydantic import ValidationError

from varient.config import TransformerSpec
from varient.cost.paper_systems import (
    LLAMAGEN_TOKENIZER_PARAMETERS,
    SD_AUTOENCODER_PARAMETERS,
    paper_system,
)
from varient.cost.parameters import dit_parameters, llamagen_parameters, var_parameters
from varient.paper import paper_table, system_id
from varient.paper.published import VALUES, parse, published, sources
from varient.pyramid import VAR_256

TEXT = (ROOT / "varient/paper/published.yaml").read_text()
TABLE2 = {system_id(row["method"]): row for _, row in paper_table(2).iterrows()}


def test_every_system_at_its_authors_size_has_an_entry():
    assert list(sources()) == [
        "var-d30", *(f"code-n{n}" for n in (6, 7, 8, 9)), *(f"free-code-n{n}" for n in (6, 7, 8, 9)),
        "dit-xl2", "dit-xl2-250", "llamagen-xxl", *(f"variant-d{d}" for d in (16, 8, 4, 2))]
    assert set(TABLE2) <= set(sources())
    assert published("gan") is None


@pytest.mark.parametrize("name", sources())
def test_parameters_are_those_of_the_formulas(name):
    weights = published(name).weights
    if not name.startswith("variant"):
        system = paper_system(name)
        assert [file.parameters for file in weights] == [*system.transformer_parameters, system.tokenizer_parameters]
    else:
        assert weights == ()


def test_parameters_by_hand():
    def of(name):
        return {file.file: file.parameters for file in published(name).weights}

    def released(depth):
        spec = TransformerSpec.released(depth)
        return var_parameters(spec, VAR_256, num_classes=1000, vocab_size=4096, z_channels=32)

    assert of("free-code-n6")["var_d30.pth"] == of("code-n9")["drafter_9.pth"] == released(30)
    assert of("free-code-n6")["var_d16.pth"] == of("code-n9")["refiner_9.pth"] == released(16)
    assert of("dit-xl2") == {"DiT-XL-2-256x256.pt": dit_parameters(), "sd-vae-ft-ema": SD_AUTOENCODER_PARAMETERS}
    assert of("llamagen-xxl") == {
        "c2i_XXL_384.pt": llamagen_parameters(), "vq_ds16_c2i.pt": LLAMAGEN_TOKENIZER_PARAMETERS}


@pytest.mark.parametrize("name", [name for name in TABLE2 if not name.startswith("variant")])
def test_rows_of_code_are_those_of_table_2_but_for_the_listed_cells(name):
    columns, numbers = {"inception_score": "is"}, published(name).numbers
    assert numbers
    for number in numbers:
        if number.source.startswith("CoDe"):
            differing = [value for value in number.values
                         if (printed := TABLE2[name].get(columns.get(value, value)))
                         and float(printed) != float(number.values[value])]
            assert sorted(differing) == sorted(number.differs_from_table2), number.source
        else:
            assert number.differs_from_table2 == ()


def test_the_papers_own_numbers_are_not_repeated():
    assert all(published(f"variant-d{d}").numbers == () for d in (16, 8, 4, 2))
    assert published("variant-d8").cell() == ""


def test_listed_differences():
    found = {(entry.id, number.source): number.differs_from_table2 for entry in sources().values()
             for number in entry.numbers if number.differs_from_table2}
    memory = "CoDe, memory by batch size"
    assert found == {
        ("var-d30", "CoDe, Table 1"): ("memory_mb",), ("var-d30", memory): ("kv_cache_mb", "memory_mb"),
        ("code-n6", memory): ("kv_cache_mb",), ("llamagen-xxl", "CoDe, Table 1"): ("latency_s",)}


def test_code_prints_speed_as_batch_over_latency():
    checked = [(float(number.images_per_s), 64 / float(number.latency_s)) for entry in sources().values()
               for number in entry.numbers if number.images_per_s]
    assert len(checked) == 7
    assert all(speed == pytest.approx(expected, rel=0.01) for speed, expected in checked)


@pytest.mark.parametrize(("name", "cell"), [
    ("dit-xl2-250", "2.27 / 278.24 (DiT README, 250 steps)"),
    ("dit-xl2", "2.26 / 239 (CoDe, Table 1, 50 steps)"),
    ("llamagen-xxl", "2.34 (LlamaGen README); 2.34 / 254 (CoDe, Table 1)"),
    ("var-d30", "1.97 (VAR README); 1.95 / 301 (CoDe, Table 1)"),
    ("code-n6", "2.27 / 297 (CoDe, Table 1)"), ("free-code-n8", "2.10 / 308 (CoDe, Table 6)")])
def test_cells(name, cell):
    assert published(name).cell() == cell


def test_second_hand_numbers_say_so():
    (quoted,) = [number for number in published("var-d30").numbers if number.seen_in == "second-hand"]
    assert quoted.cell() == "1.92 / 323.1 (VAR paper, second-hand)"


def test_no_place_of_ours_is_named():
    assert not re.search(r"/work|/home|/root|/tmp|peers", TEXT)
    assert all(len(line) <= 120 for line in TEXT.splitlines())


def test_all_values_are_fields():
    number = published("var-d30").numbers[0]
    assert {name for name in VALUES if name in type(number).model_fields} == set(VALUES)


def _entry(**changes):
    entry = {
        "id": "x", "name": "X", "repository": {"url": "https://x", "commit": None, "committed": None, "licence": None},
        "weights": [], "protocol": {"words": "w", "settings": {}},
        "numbers": [{"source": "S", "protocol": "authors", "seen_in": "notes", "fid": "2.10"}]}
    return yaml.safe_dump([entry | changes])


def test_a_sound_entry():
    assert parse(_entry())["x"].cell() == "2.10 (S)"


@pytest.mark.parametrize(("text", "message"), [
    (_entry(extra=1), "extra"),
    (_entry(numbers=[{"source": "S", "protocol": "authors", "seen_in": "notes", "fid": 2.1}]), "valid string"),
    (_entry(numbers=[{"source": "S", "protocol": "authors", "seen_in": "notes", "fid": "about 2"}]), "pattern"),
    (_entry(numbers=[{"source": "S", "protocol": "authors", "seen_in": "notes"}]), "S prints no number"),
    (_entry(numbers=[{"source": "S", "protocol": "authors", "seen_in": "notes", "fid": "2",
                      "differs_from_table2": ["recall"]}]), "recall cannot differ"),
    (_entry(numbers=[{"source": "S", "protocol": "authors", "fid": "2"}]), "seen_in"),
    (_entry(weights=[{"file": "f", "at": "https://f", "parameters": "12", "what": "w"}]), "valid integer"),
    (_entry() + _entry(), "two entries for x")])
def test_unsound_entries_are_refused(text, message):
    with pytest.raises((ValueError, ValidationError), match=message):
        parse(text)


def test_entries_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        published("var-d30").name = "other"


def test_neither_torch_nor_pandas_is_needed():
    code = ("import sys; from varient.paper.published import published; published('var-d30'); "
            "sys.exit(bool({'torch', 'pandas'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT).returncode == 0
