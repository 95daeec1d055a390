import json
from datetime import date
from functools import reduce
from itertools import pairwise
from operator import getitem

import pytest
import yaml
from conftest import ROOT

from varient.config import ConfigError, load_config, parse_config
from varient.experiment import parse_experiment

CONFIGS = ["digits", "digits_c", "fashion", "smoke", "imagenet256"]


def _settings(name="digits"):
    return yaml.safe_load((ROOT / f"workflow/config/{name}.yaml").read_text())


@pytest.mark.parametrize("name", CONFIGS)
def test_shipped_configs_are_valid(name):
    config = load_config(ROOT / f"workflow/config/{name}.yaml")
    assert config.name == name
    assert parse_config(config.model_dump(mode="json"), "again") == config


def test_the_experiment_of_vars_files_alone_is_the_papers_without_the_other_systems():
    alone, whole = _settings("imagenet256_var"), _settings("imagenet256")
    assert {"systems": whole.pop("systems"), "rows": whole.pop("rows")} and alone == whole
    assert load_config(ROOT / "workflow/config/imagenet256_var.yaml").rows == ()


def _changed(path, value, name="digits"):
    settings = _settings(name)
    *parents, last = path
    place = settings
    for key in parents:
        place = place[key]
    place[last] = value
    return settings


@pytest.mark.parametrize(("path", "value", "message"), [
    (("sed",), 3, r"x.yaml: sed: Extra inputs are not permitted \(got 3\)"),
    (("sampling", "topk"), 3, "x.yaml: sampling.topk: Extra inputs"),
    (("sampling", "cfg"), "high", "x.yaml: sampling.cfg: .*valid number"),
    (("supernet", "depths"), [31], r"subnet depth d = 31 is above the full depth D = 30"),
    (("supernet", "depths"), [1], "supernet.depths.0: .*greater than or equal to 2"),
    (("supernet", "bridge"), 11, r"N = 11 is outside 0\.\.10"),
    (("supernet", "depths"), [7], "phases has no entry for depth 7"),
    (("patch_nums",), [1, 2, 3], "patch_nums ends at 3, .* need a latent side of 4"),
    (("patch_nums",), [2, 1, 4], "side 1 of scale 2 is below 2"),
    (("transformer", "num_heads"), 5, "embed_dim = 32 is not divisible by num_heads = 5"),
    (("tokenizer", "model", "norm_groups"), 5, "ch = 16 is not divisible by norm_groups = 5"),
    (("sampling", "num_images"), 2001, "num_images = 2001 is not a multiple of"),
    (("base", "weights"), "var.pth", "base needs exactly one of 'weights'"),
    (("base",), {}, "base needs exactly one of 'weights'"),
    (("evaluation",), {}, "evaluation: protocol digits needs 'classifier'"),
    (("evaluation", "halves"), -1, "evaluation.halves: .*greater than or equal to 0"),
    (("ablations", "refined"), [4], "ablations.refined: 4 is ablations.depth already"),
    (("ablations", "refined"), [5], "ablations.refined: 5 is not in supernet.depths"),
    (("ablations", "further"), {4: {}}, "ablations.further: 4 is ablations.depth already"),
    (("ablations", "further"), {5: {}}, "ablations.further: 5 is not in supernet.depths"),
    (("ablations", "bases"), -1, "ablations.bases: .*greater than or equal to 0"),
    (("name",), "My Run", "x.yaml: name: "),
    (("seed",), 2 ** 31, "x.yaml: seed: "),
    (("supernet", "selection"), "random", "x.yaml: supernet.selection: "),
    (("data", "image_size"), 16, "data: digits are 8 x 8 in 10 classes; data says image_size = 16"),
    (("data", "num_classes"), 5, "digits are 8 x 8 in 10 classes"),
    (("data", "holdout"), 0, "holdout = 0 of the 1797 images of digits must leave"),
    (("data", "holdout"), 1797, "holdout = 1797 of the 1797 images"),
    (("held_out_images",), 361, "held_out_images = 361 is above data.holdout = 360"),
    (("base", "training", "batch_size"), 1438, r"base.training.batch_size = 1438 is above the 1437 images"),
    (("evaluation", "classifier", "batch_size"), 2000, r"evaluation.classifier.batch_size = 2000 is above"),
    (("evaluation", "neighborhood"), 1437, r"evaluation.neighborhood = 1437 must be below the 1437 images"),
    (("evaluation", "neighborhood"), 400, r"evaluation.neighborhood = 400 must be below the 360 images of data.hold"),
    (("evaluation", "classifier", "feature_dim"), 360,
     r"data.holdout = 360 is too few for evaluation.classifier.feature_dim = 360: FID takes 361 images"),
    (("sampling", "num_images"), 60,
     r"sampling.num_images = 60 is too few for evaluation.classifier.feature_dim = 64: FID takes 65 images"),
    (("evaluation", "kid_subset_size"), 1, "evaluation.kid_subset_size: "),
    (("evaluation", "weights_sha256"), "abc", "evaluation.weights_sha256: "),
    (("sampling", "shards"), 1001, "sampling.shards: .*less than or equal to 1000"),
    (("sampling",), {"num_images": 20, "shards": 21, "batch_size": 10}, "sampling.shards = 21 is above num_images"),
    (("base", "training", "betas"), [0.9, 1.0], r"base.training.betas.1: .*less than 1"),
    (("transformer", "drop_path_rate"), 1, "transformer.drop_path_rate: .*less than 1"),
    (("tokenizer", "model", "ch_mult"), [], "tokenizer.model.ch_mult: .*at least 1"),
    (("tokenizer", "model", "in_channels"), 1, "tokenizer.model.in_channels = 1: images have 3"),
    (("supernet", "depths"), [4, 4], "supernet.depths names a depth twice"),
    (("supernet", "depths"), [], "supernet.depths: "),
    (("supernet", "phases", 4), [0, 0, 0], "supernet.phases.4: all three phases have 0 epochs"),
    (("supernet", "counterparts"), {16: 5}, "supernet.counterparts: 16 -> 5, which is not in supernet.depths"),
    (("supernet", "recipes"), {"p50": {"phases": {3: [1, 1, 1]}}}, r"supernet.recipes.p50.phases: 3 is not in"),
    (("ablations", "depth"), 3, "ablations.depth: 3 is not in supernet.depths = 16, 8, 4, 2"),
    (("ablations", "evolution"), [4, 5], "ablations.evolution: 5 is not in supernet.depths"),
    (("ablations", "zones"), [[3, 1]], r"ablations.zones: \[3, 1\] is not a zone of the scales 1..10"),
    (("ablations", "zones"), [[4, 11]], r"ablations.zones: \[4, 11\] is not a zone"),
    (("ablations", "seeds"), 10 ** 9, "ablations.seeds: .*less than or equal to 100"),
    (("ablations", "ratios"), {"p50": 10 ** 9}, "ablations.ratios.p50: "),
    (("transformer", "depth"), 2 ** 30, "transformer.depth: .*less than or equal to 1000"),
    (("data", "image_size"), 10 ** 400, "data.image_size: "),
    (("sampling", "batch_size"), 2 ** 31, "sampling.batch_size: "),
    (("profiling", "threads"), 10 ** 9, "profiling.threads: "),
    (("patch_nums",), [1] * 1000, "patch_nums: .*at most 100"),
    (("rows",), ["x" * 1000], "rows.0: .*at most 100"),
    (("systems",), {"dit": {"cfg": float("nan")}}, "systems: contains a value that JSON cannot represent"),
    (("systems",), {"dit": {"cfg": date(2024, 1, 1)}}, "systems: contains a value that JSON cannot represent"),
])
def test_wrong_settings_name_file_key_and_expectation(path, value, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(_changed(path, value), "x.yaml")


@pytest.mark.parametrize(("protocol", "fewest"), [("adm", 2049), ("torch-fidelity", 2049), ("clean-fid", 2049),
                                                  ("adm-rehearsal", 9), ("fd-dinov2", 1025)])
def test_too_few_images_for_a_protocol_are_refused_before_any_is_made(protocol, fewest):
    settings = _changed(("evaluation", "protocol"), protocol, "imagenet256")
    settings["data"]["num_classes"], settings["sampling"]["shards"] = 1, 2
    settings["sampling"]["num_images"] = fewest
    assert parse_config(settings, "x.yaml").sampling.num_images == fewest
    settings["sampling"]["num_images"] = fewest - 1
    with pytest.raises(ConfigError) as error:
        parse_config(settings, "x.yaml")
    (line,) = str(error.value).splitlines()
    for part in (f"sampling.num_images = {fewest - 1}", f"evaluation.protocol = '{protocol}'", f"{fewest} images"):
        assert part in line
    assert ("'adm-rehearsal' takes 9" in line) == (protocol == "adm")


def _numbers(settings, path=()):
    """Where numbers stand in settings."""
    parts = settings.items() if isinstance(settings, dict) else enumerate(settings)
    for key, value in parts:
        if isinstance(value, dict | list):
            yield from _numbers(value, (*path, key))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield (*path, key)


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan"), 1e300, 10 ** 400, -2 ** 31, True, "many",
                                   [1], {"a": 1}, None])
def test_every_number_of_every_section_is_held_to_numbers(value):
    """Each line names the place and stays short; None takes a default's place where there is one."""
    settings = parse_config(_settings("smoke"), "x").model_dump(mode="json")
    places = [place for place in _numbers(settings) if place[0] != "systems"]
    assert len(places) > 80
    for place in places:
        whole = json.loads(json.dumps(settings))
        where = reduce(lambda part, key: part[key], place[:-1], whole)
        where[place[-1]] = value
        optional = place[-1] in ("ratio", "bridge", "batches_per_epoch")
        if value is None and optional:
            continue
        with pytest.raises(ConfigError) as error:
            parse_config(whole, "x.yaml")
        assert ".".join(map(str, place)) in str(error.value)
        assert all(len(line) < 300 for line in str(error.value).splitlines())


def test_every_wrong_key_is_named_at_once():
    settings = _changed(("sed",), 1)
    settings["sampling"]["topk"] = 1
    with pytest.raises(ConfigError) as error:
        parse_config(settings, "x.yaml")
    assert {line.split(": ")[1] for line in str(error.value).splitlines()} == {"sed", "sampling.topk"}


def test_of_very_many_wrong_keys_the_first_are_named():
    with pytest.raises(ConfigError) as error:
        parse_config(_settings() | {f"key{n}": "x" * 10 ** 5 for n in range(1000)}, "x.yaml")
    lines = str(error.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["key0", "key1", "key2", "key3", "config"]
    assert "996 more wrong keys" in lines[-1] and "key4, key5" in lines[-1] and len(str(error.value)) < 2000


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match="no such config file"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(ConfigError, match="bad.yaml: not valid YAML"):
        load_config(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match="list.yaml: config: "):
        load_config(tmp_path / "list.yaml")


def test_digest_follows_the_named_sections_and_the_seed():
    config = parse_config(_settings(), "x")
    resampled = parse_config(_changed(("sampling", "cfg"), 2.0), "x")
    assert config.digest("data", "base") == resampled.digest("data", "base")
    assert config.digest("sampling") != resampled.digest("sampling")
    assert config.digest("base") != parse_config(_changed(("seed",), 1), "x").digest("base")


@pytest.mark.parametrize(("precision", "free"), [
    ("fp32", {"shards", "batch_size", "decoded_at_once"}),
    ("fp16", {"decoded_at_once"}),
    ("bf16", {"decoded_at_once"}),
])
def test_images_are_known_by_what_can_change_them(precision, free):
    """In 16 bits a token hangs on the size of a batch often enough; what only divides the work is no part of them."""
    settings = _settings() | {"sampling": _settings()["sampling"] | {"precision": precision}}
    config = parse_config(settings, "x")
    changes = {"num_images": 100, "shards": 7, "batch_size": 8, "cfg": 2.0, "top_k": 3, "top_p": 0.5,
               "decoded_at_once": 2, "precision": "fp32" if precision == "fp16" else "fp16"}
    assert set(changes) == set(type(config.sampling).model_fields)
    same = set()
    for name, value in changes.items():
        changed = parse_config(settings | {"sampling": settings["sampling"] | {name: value}}, "x")
        if config.digest(*config.sampling.image_sections) == changed.digest(*changed.sampling.image_sections):
            same.add(name)
    assert same == free


@pytest.mark.parametrize(("section", "place"), [("data", "root"), ("tokenizer", "weights"), ("base", "weights")])
def test_digest_does_not_follow_where_files_lie(section, place):
    settings = _settings("imagenet256")
    config = parse_config(settings, "x")
    settings[section] = settings[section] | {place: "/elsewhere"}
    moved = parse_config(settings, "x")
    assert moved != config and moved.digest(section) == config.digest(section) and moved.digest() == config.digest()


def test_digest_tells_a_released_network_from_a_trained_one():
    trained = _settings("imagenet256") | {"base": _settings()["base"]}
    assert parse_config(trained, "x").digest("base") != parse_config(_settings("imagenet256"), "x").digest("base")


def test_counterparts():
    config = load_config(ROOT / "workflow/config/smoke.yaml")
    assert [config.counterpart(d) for d in (16, 8, 4, 2)] == [4, None, 2, None]
    digits = load_config(ROOT / "workflow/config/digits.yaml")
    assert [digits.counterpart(d) for d in (16, 8, 4, 2)] == [16, 8, 4, 2]


def test_nested_selection_makes_the_experiments_own_sets_nested():
    config = parse_config(_changed(("supernet", "selection"), "nested"), "x")
    sets = [set(config.plan(depth).layers(10)) for depth in (2, 4, 8, 16)]
    assert [len(layers) for layers in sets] == [2, 4, 8, 16]
    assert all(small < large for small, large in pairwise(sets))
    equidistant = parse_config(_settings(), "x")
    assert not set(equidistant.plan(8).layers(10)) < set(equidistant.plan(16).layers(10))


PATHS = [("data", "root"), ("tokenizer", "weights"), ("base", "weights"), ("evaluation", "reference"),
         ("evaluation", "inception_weights"), ("systems", "code", "small", "weights"),
         *(("systems", "code", "pairs", "6", part, "weights") for part in ("drafter", "refiner")),
         ("systems", "dit", "weights"), ("systems", "dit", "vae"),
         *(("systems", "llamagen", part, "weights") for part in ("tokenizer", "transformer"))]
"""Each path that a config can hold."""
PLACEHOLDERS = ["a{x}b", "{x}", "{ x }", "{x,[0-9]{2}}", "{input.x}", "<results>/x", "a<b>"]
UNWRITABLE = ["a\nb", "a\rb", "a\0b", "a\x7fb", "a\x85b", "a\u2028b", "a\ud800b", ""]


def _paper_with(path, value):
    settings = json.loads(json.dumps(_settings("imagenet256")))
    *parents, last = path
    reduce(getitem, parents, settings)[last] = value
    return settings


@pytest.mark.parametrize("value", ["a b", "it's", '"', "$(touch x)", ";", "-x", "é", "{x y}", "a{b", "<", "~", "*",
                                   "\\", "%s", "文"])
def test_paths_are_taken_as_they_are_written(value):
    config = parse_config(_paper_with(("evaluation", "reference"), value), "x.yaml")
    assert str(config.evaluation.reference) == value
    assert parse_config(yaml.safe_load(config.model_dump_json()), "again") == config


@pytest.mark.parametrize("value", UNWRITABLE + PLACEHOLDERS, ids=ascii)
def test_a_path_that_a_rule_cannot_have_is_refused(value):
    """No command and no file can hold the first ones; Snakemake cannot be told to take the others as they are."""
    with pytest.raises(ConfigError, match=r"^x.yaml: evaluation.reference: .*$"):
        parse_config(_paper_with(("evaluation", "reference"), value), "x.yaml")


@pytest.mark.parametrize("value", ["a\nb", "a{x}b"], ids=ascii)
@pytest.mark.parametrize("path", PATHS, ids=".".join)
def test_each_path_is_looked_at_and_named(path, value):
    settings = _paper_with(path, value)
    if path == ("data", "root") and "\n" not in value:  # a folder of images is no file of a rule
        assert str(parse_config(settings, "x.yaml").data.root) == value
    else:
        with pytest.raises(ConfigError, match=f"^x.yaml: {'.'.join(path)}: .*$"):
            parse_experiment(settings, "x.yaml")


def test_a_recipes_name_has_the_digits_that_files_have():
    with pytest.raises(ConfigError, match="supernet.recipes"):
        parse_config(_changed(("supernet", "recipes"), {"p٣": {"ratio": 0.3}}), "x.yaml")
