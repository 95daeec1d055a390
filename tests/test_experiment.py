"""What a config names must be there: families, networks, arms and rows."""

import pytest
import yaml
from conftest import ROOT

from varient.config import ConfigError, load_config, parse_config
from varient.experiment import keep_config, load_experiment, parse_experiment


def _digits(**changes):
    return yaml.safe_load((ROOT / "workflow/config/digits.yaml").read_text()) | changes


@pytest.mark.parametrize("name", ["digits", "digits_c", "smoke", "imagenet256"])
def test_shipped_experiments_are_whole(name):
    path = ROOT / f"workflow/config/{name}.yaml"
    assert load_experiment(path) == load_config(path)


@pytest.mark.parametrize(("changes", "message"), [
    ({"rows": ["gan"]}, "x.yaml: rows: system 'gan' is unknown; known forms: code-n<N>"),
    ({"rows": ["variant-d7"]}, "x.yaml: rows: system 'variant-d7': digits trains supernets for d = 16, 8, 4, 2"),
    ({"rivals": ["var-d30-w0"]}, "x.yaml: rivals: system var-d30-w0: window W = 0"),
    ({"rivals": ["var-d30-w10"]}, "x.yaml: rivals: system 'var-d30-w10': window W = 10"),
    ({"rivals": ["variant-d8-w1-c7"]}, "x.yaml: rivals: system 'variant-d8-w1-c7': C = 7"),
    ({"rivals": ["var-d30-kv3"]}, "x.yaml: rivals: system var-d30-kv3: 3 bits"),
    ({"rivals": ["dit-mini"]}, "x.yaml: rivals: 'dit-mini' is no system of VAR"),
    ({"rivals": ["dit-mini-w1"]}, "x.yaml: rivals: system 'dit-mini-w1' is unknown"),
    ({"rows": ["dit-mini", "dit-mini-50"]}, "x.yaml: rows: dit-mini and dit-mini-50 both stand for dit-xl2"),
    ({"systems": {"gan": {}}, "rows": []}, "x.yaml: systems.gan: no installed system family has this name"),
    ({"systems": {"dit": {"size": "mini"}}, "rows": []}, "x.yaml: systems.dit.model: Field required"),
    ({"systems": {"dit": {"size": "mini", "model": {"depth": 2, "hidden_size": 32, "num_heads": 2}, "space": "pixels",
                          "training": {"epochs": 2, "batch_size": 1500, "learning_rate": 0.1}}}, "rows": []},
     "x.yaml: systems.dit.training.batch_size = 1500 is above the 1437 images"),
    ({"systems": {"dit": {"size": "mini", "model": {"depth": 10 ** 9, "hidden_size": 32, "num_heads": 2}}}, "rows": []},
     "x.yaml: systems.dit.model.depth: Input should be less than or equal to 1000"),
    ({"rows": ["dit-mini", "dit-mini"]}, "x.yaml: rows: dit-mini is named twice"),
    ({"rivals": ["var-d30-w1", "var-d30-w1"]}, "x.yaml: rivals: var-d30-w1 is named twice"),
    ({"ablations": {"depth": 4, "extensions": ["auto", "auto"]}}, "x.yaml: ablations: extensions, 'auto' of d = 4"),
    ({"ablations": {"depth": 4, "skip_all": "jump"}}, "x.yaml: ablations: supernet.recipes has no 'jump'"),
])
def test_what_is_named_and_not_there_is_told_with_the_file(changes, message):
    settings = _digits(**changes)
    parse_config(settings, "x.yaml")  # in itself each is well-formed
    with pytest.raises(ConfigError) as error:
        parse_experiment(settings, "x.yaml")
    assert message in str(error.value)


def test_a_wrong_key_is_told_as_ever(tmp_path):
    with pytest.raises(ConfigError, match="x.yaml: sed: Extra inputs are not permitted"):
        parse_experiment(_digits(sed=3), "x.yaml")
    with pytest.raises(ConfigError, match="no such config file"):
        load_experiment(tmp_path / "none.yaml")


def test_a_config_that_is_kept_is_left_alone_by_whoever_keeps_another(tmp_path, smoke):
    first = keep_config(smoke, tmp_path / "smoke")
    written = first.stat().st_mtime_ns
    other = keep_config(smoke.model_copy(update={"seed": 77}), tmp_path / "smoke")
    assert keep_config(smoke, tmp_path / "smoke") == first != other
    assert first.stat().st_mtime_ns == written and load_experiment(first) == smoke
    assert load_experiment(other).seed == 77 and set((tmp_path / "smoke").iterdir()) == {first, other}


@pytest.mark.parametrize("change", [lambda text: text.replace('"seed": 0', '"seed": 77'), lambda text: text[:100]],
                         ids=["edited", "cut off"])
def test_a_kept_config_that_was_changed_is_written_again(tmp_path, smoke, change):
    kept = keep_config(smoke, tmp_path)
    whole = kept.read_text("utf-8")
    kept.write_text(change(whole), "utf-8")
    assert kept.read_text("utf-8") != whole
    assert keep_config(smoke, tmp_path) == kept and kept.read_text("utf-8") == whole


def _paper(**changes):
    return yaml.safe_load((ROOT / "workflow/config/imagenet256.yaml").read_text()) | changes


@pytest.mark.parametrize(("changes", "section"), [
    ({"tokenizer": {"training": _digits()["tokenizer"]["training"]}}, "tokenizer.training"),
    ({"evaluation": _digits()["evaluation"]}, "evaluation.protocol = 'digits'"),
    ({"systems": {"dit": _digits()["systems"]["dit"]}, "rows": []}, "systems.dit.training"),
])
def test_what_is_trained_on_images_in_memory_has_them_there(changes, section):
    with pytest.raises(ConfigError) as error:
        parse_experiment(_paper(**changes), "x.yaml")
    assert str(error.value).startswith(f"x.yaml: {section}: ") and "'imagenet'" in str(error.value)


def test_a_codebook_too_large_for_a_cache_of_tokens_is_told_before_it_is_made():
    settings = _paper()
    settings["data"]["augmentation"] = None
    settings["tokenizer"]["model"] = {"vocab_size": 2 ** 16}
    assert parse_config(settings, "x.yaml").data.cacheable
    settings["tokenizer"]["model"]["vocab_size"] += 1
    with pytest.raises(ConfigError, match="vocab_size = 65537 is above 65536"):
        parse_config(settings, "x.yaml")
