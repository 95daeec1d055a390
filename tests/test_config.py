from itertools import pairwise

import pytest
import yaml
from conftest import ROOT

from varient.config import ConfigError, load_config, parse_config

CONFIGS = ["digits", "digits_c", "smoke", "imagenet256"]


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


def _changed(path, value):
    settings = _settings()
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
    (("name",), "My Run", "x.yaml: name: "),
    (("seed",), 2 ** 31, "x.yaml: seed: "),
    (("supernet", "selection"), "random", "x.yaml: supernet.selection: "),
])
def test_wrong_settings_name_file_key_and_expectation(path, value, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(_changed(path, value), "x.yaml")


def test_every_wrong_key_is_named_at_once():
    settings = _changed(("sed",), 1)
    settings["sampling"]["topk"] = 1
    with pytest.raises(ConfigError) as error:
        parse_config(settings, "x.yaml")
    assert {line.split(": ")[1] for line in str(error.value).splitlines()} == {"sed", "sampling.topk"}


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
