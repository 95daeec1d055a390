"""Records that are not the paper's are never shown as such: of other sizes, weights, devices, of another config."""

import pytest
from claim_fixtures import IMAGENET, paper_size_score
from conftest import PUBLISHED
from record_factory import of

from varient.claims import Verdict, judge, write_claims
from varient.config import parse_config
from varient.paper_size import differences, is_paper_size
from varient.report.tables import TABLES, render

pytestmark = pytest.mark.usefixtures("published")

AT_PAPER_SIZE = (Verdict.REPRODUCED, Verdict.NOT_REPRODUCED)
SYSTEMS = ("var-d30", "variant-d16", "variant-d8", "variant-d4", "variant-d2", "variant-d16-full", "free-d16",
           "free-d16-r1to3", "free-d16-r4to6", "variant-d16-skip", "variant-d16-skip-full")


def _records():
    return of(*(paper_size_score(system, 100.0 + at) for at, system in enumerate(SYSTEMS)))


def _edited(results, change):
    return of(*(change(record) for record in results.scores.values()))


def _provenance(**changes):
    return lambda record: record.model_copy(update={"provenance": record.provenance.model_copy(update=changes)})


def _at_size(config, results):
    return [judgement.id for judgement in judge(config, results) if judgement.verdict in AT_PAPER_SIZE]


def _settings(**changes):
    settings = IMAGENET.model_dump(mode="json", exclude_none=True)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = settings
        for key in parents:
            place = place[key]
        place[last] = value
    return parse_config(settings, "x.yaml")


def test_sound_records_get_verdicts_at_the_papers_size():
    assert len(_at_size(IMAGENET, _records())) > 10 and not differences(IMAGENET)


KNOWN = paper_size_score("var-d30", 2.0).provenance.imported_sha256


@pytest.mark.parametrize(("change", "said"), [
    (_provenance(imported_sha256={}), "unknown weights"),
    (_provenance(imported_sha256=KNOWN | {"base": "e" * 64}), "unknown weights"),
    (_provenance(imported_sha256=KNOWN | {"tokenizer": "e" * 64}), "unknown weights"),
    (_provenance(imported_sha256=KNOWN | {"base": PUBLISHED["drafter_6.pth"]}), "unknown weights"),  # the same layout
    (_provenance(weights_sha256={"extractor": "e" * 64}), "unknown weights"),
    (lambda record: record.model_copy(update={"reference_sha256": "e" * 64}), "unknown weights"),
    (_provenance(settings="e" * 64), "as the config says"),
    (_provenance(seed=7), "as the config says"),
    (lambda record: record.model_copy(update={"num_images": 18}), "as the config says"),
    (lambda record: record.model_copy(update={"protocol": "adm-rehearsal"}), "as the config says"),
])
def test_records_of_other_things_decide_nothing_and_are_marked_in_every_table(change, said, tmp_path):
    results = _edited(_records(), change)
    assert _at_size(IMAGENET, results) == []
    judged = [judgement for judgement in judge(IMAGENET, results) if judgement.source == "measured (imagenet256)"]
    assert judged and all(said in judgement.evidence for judgement in judged)
    for number in TABLES:
        if number != 3:  # a minute, and its notes are made by the same function as those of 6 and 7
            text = render(number, IMAGENET, results, tmp_path / f"table{number}")[1].read_text()
            assert said in text.lower()
    csv = (tmp_path / "table2.csv").read_text()
    assert ("measured (imagenet256), unknown weights" in csv) == (said == "unknown weights")
    page = write_claims(IMAGENET, results, tmp_path / "claims")[1].read_text()
    assert said in page.partition("## ")[0].lower()


@pytest.mark.parametrize(("changes", "what"), [
    ({"data__num_classes": 4}, "classes 4, the paper's 1000"),
    ({"transformer__embed_dim": 60}, "parameters 2"),
    ({"transformer__depth": 16}, "depth 16, the paper's 30"),
    ({"tokenizer__model__ch": 32}, "parameters of the tokenizer"),
    ({"sampling__num_images": 5000}, "images 5000, the paper's 50000"),
    ({"evaluation__protocol": "torch-fidelity"}, "protocol torch-fidelity, the paper's adm"),
    ({"evaluation__protocol": "adm-rehearsal"}, "protocol adm-rehearsal, the paper's adm"),
    ({"patch_nums": [1, 2, 3, 4, 5, 6, 8, 10, 12, 16]}, "scales"),
])
def test_another_experiment_of_the_papers_name_is_not_the_papers(changes, what, tmp_path):
    """Its records agree with its own config in everything."""
    if "transformer__depth" in changes:
        changes = changes | {"supernet__depths": [8], "supernet__phases": {8: [5, 15, 8]}, "ablations": None,
                             "rows": []}
    config = _settings(**changes)
    digest = config.digest(*config.sampling.image_sections, "evaluation")
    results = _edited(_records(), lambda record: _provenance(settings=digest)(record.model_copy(update={
        "num_images": config.sampling.num_images, "protocol": config.evaluation.protocol})))
    assert _at_size(config, results) == [] and any(what in text for text in differences(config))
    assert is_paper_size(config) == what.startswith(("images", "protocol"))
    for number in (1, 2, 4, 5, 6, 7, 8):
        text = render(number, config, results, tmp_path / f"table{number}")[1].read_text()
        assert what in text and "Not the paper's experiment" in text


def test_the_device_that_counts_is_the_one_that_drew_the_images(tmp_path):
    drawn_on_gpu = _edited(_records(), _provenance(device="CPU AMD", sampled_on="NVIDIA H100"))
    assert _at_size(IMAGENET, drawn_on_gpu) == _at_size(IMAGENET, _records())
    drawn_on_cpu = _edited(_records(), _provenance(device="NVIDIA H100", sampled_on="CPU AMD"))
    assert _at_size(IMAGENET, drawn_on_cpu) == []
    page = write_claims(IMAGENET, drawn_on_cpu, tmp_path / "claims")[1].read_text()
    assert f"{len(SYSTEMS)} score records whose images a CPU drew, of var-d30, variant-d16" in page


def test_warnings_of_records_reach_the_notes_once(tmp_path):
    """Each begins with the folder of its system's samples."""
    warned = _edited(_records(), lambda record: record.model_copy(update={
        "warnings": (f"runs/imagenet256/samples/{record.system}: 7 of 50000 images are copies of another",)}))
    text = render(4, IMAGENET, warned, tmp_path / "table4")[1].read_text()
    assert text.count("7 of 50000 images are copies of another") == 1 and f"{len(SYSTEMS)} records" in text
