import pytest
import torch
from conftest import golden

from varient.baselines.dit.released import DIT_WEIGHTS as DIT
from varient.baselines.llamagen.checkpoints import TOKENIZER_WEIGHTS, TRANSFORMER_WEIGHTS
from varient.models.checkpoint import CheckpointError
from varient.models.nested import StateDict, flat_state_dict, unwrap
from varient.models.official import VAR_WEIGHTS, VQVAE_WEIGHTS

CASES = {"var": (VAR_WEIGHTS, "var_tf_l2", "sd/"), "vqvae": (VQVAE_WEIGHTS, "vqvae_k10_qsr4", "sd/"),
         "dit": (DIT, "dit_tiny", "sd/"), "llamagen": (TRANSFORMER_WEIGHTS, "llamagen_gpt", "sd/gpt/"),
         "llamagen-vq": (TOKENIZER_WEIGHTS, "llamagen_vq", "sd/")}
FAMILIES = list(CASES)


def _case(name):
    family, case, prefix = CASES[name]
    return family, golden(case).state_dict(prefix)


def _prefixed(tensors, prefix):
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _moved(tensors):
    return {name: tensor + 1 for name, tensor in tensors.items()}


def _is(found, tensors):
    return found.keys() == tensors.keys() and all(torch.equal(found[name], tensors[name]) for name in tensors)


def _refused(content, family, match):
    with pytest.raises(CheckpointError, match=match) as caught:
        unwrap(content, family, "w.pth")
    assert str(caught.value).startswith("w.pth") and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("place", "wrap"), [
    ("", lambda tensors: tensors),
    ("model", lambda tensors: {"model": tensors}),
    ("state_dict", lambda tensors: {"state_dict": tensors, "epoch": 3}),
    ("module", lambda tensors: {"module": tensors, "step": torch.tensor(3)}),
    ("net", lambda tensors: {"net": tensors}),
    ("ema", lambda tensors: {"ema": tensors, "model": {}, "opt": {"state": {}}}),
    ("model_ema", lambda tensors: {"model_ema": tensors}),
    ("state_dict.model", lambda tensors: {"state_dict": {"model": tensors, "epoch": 1}}),
])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.",
                                    "module.module."])
def test_weights_are_found_where_trainers_leave_them(name, place, wrap, prefix):
    family, tensors = _case(name)
    found = unwrap(wrap(_prefixed(tensors, prefix)), family, "w.pth")
    assert _is(found, tensors) and found.taken == place and isinstance(found, StateDict)


def test_a_var_training_gives_transformer_and_tokenizer(caplog):
    (var, transformer), (vqvae, tokenizer) = _case("var"), _case("vqvae")
    content = {"epoch": 3, "iter": 0, "args": {"depth": 16}, "trainer": {
        "config": {"patch_nums": (1, 2)}, "var_wo_ddp": transformer, "vae_local": tokenizer,
        "var_opt": {"optimizer": {}}}}
    found = unwrap(content, var, "ar-ckpt-last.pth")
    assert _is(found, transformer) and found.taken == "trainer.var_wo_ddp"
    assert found.left_out == ("args", "epoch", "iter", "trainer.config", "trainer.vae_local", "trainer.var_opt")
    (record,) = caplog.records
    assert "'trainer.var_wo_ddp' is used" in record.getMessage() and "trainer.vae_local" in record.getMessage()
    found = unwrap(content, vqvae, "ar-ckpt-last.pth")
    assert _is(found, tokenizer) and found.taken == "trainer.vae_local" and "trainer.var_wo_ddp" in found.left_out


@pytest.mark.parametrize(("name", "taken"), [
    ("var", "model"), ("vqvae", "model"), ("dit", "ema"), ("llamagen", "model"), ("llamagen-vq", "model")])
@pytest.mark.parametrize("turned", [False, True])
def test_of_two_sets_of_weights_the_one_that_the_authors_sample_from_is_taken_and_named(caplog, name, taken, turned):
    family, tensors = _case(name)
    other = ({"model", "ema"} - {taken}).pop()
    content = {taken: tensors, other: _moved(tensors)}
    found = unwrap(dict(reversed(content.items())) if turned else content, family, "w.pt")
    assert _is(found, tensors) and (found.taken, found.left_out) == (taken, (other,))
    (record,) = caplog.records
    assert f"'{taken}' is used, left out: {other}" in record.getMessage() and family.reason in record.getMessage()


def test_weights_of_other_networks_beside_them_are_no_candidates(caplog):
    family, tensors = _case("llamagen-vq")
    found = unwrap({"model": _case("dit")[1], "state_dict": tensors}, family, "w.pt")
    assert _is(found, tensors) and found.left_out == ("model",) and family.reason not in caplog.text


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("inside", ["_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_orig_mod"])
def test_wrappers_inside_a_network_add_nothing_to_its_names(name, inside):
    family, tensors = _case(name)
    wrapped = {".".join((*key.split(".")[:-1], inside, key.split(".")[-1])): value for key, value in tensors.items()}
    assert _is(unwrap(wrapped, family, "w.pth"), tensors)


def test_the_counter_of_averaged_weights_is_left_out():
    family, tensors = _case("var")
    found = unwrap({"model": _prefixed(tensors, "module.") | {"n_averaged": torch.tensor(5)}}, family, "w.pth")
    assert _is(found, tensors) and found.left_out == ("n_averaged",)


def test_a_tensor_that_is_there_twice_is_refused():
    family, tensors = _case("var")
    _refused(tensors | {"_orig_mod.head.bias": tensors["head.bias"]}, family, "head.bias twice")


def test_part_of_the_names_under_a_prefix_stays_as_it_is():
    family, tensors = _case("var")
    odd = {f"module.{name}" if name == "head.bias" else name: value for name, value in tensors.items()}
    assert "module.head.bias" in unwrap(odd, family, "w.pth")


@pytest.mark.parametrize(("content", "match"), [
    ([1], "found list"),
    (torch.zeros(3), "found Tensor"),
    ({"model": {}}, "an unknown layout"),
    ({"model": {"x": 1}}, "an unknown layout"),
    ({"trainer": {"var_wo_ddp": {}}}, "a VAR training checkpoint"),
    ({"head.bias": torch.zeros(3), "epoch": 3}, "epoch is int"),
    ({"model": {"head.bias": torch.zeros(3), "epoch": 3}}, "w.pth: model: .*epoch is int"),
    ({0: torch.zeros(3)}, "its key 0 is int"),
    ({"model": {("a", 1): torch.zeros(3)}}, "its key .* is tuple"),
    ({"x": torch.zeros(3, dtype=torch.complex64)}, "x is a tensor that is complex"),
    ({"model": {"x": torch.eye(3).to_sparse()}}, "x is a tensor that is sparse"),
    ({"x": torch.eye(3).to_sparse_csr()}, "x is a tensor that is sparse"),
    ({"x": torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8)}, "x is a tensor that is quantised"),
    ({"x": torch.zeros(3, device="meta")}, "x is a tensor that is without values"),
    ({"x": torch.zeros(1).expand(10 ** 9, 10 ** 9)}, "x is a tensor that is larger"),
])
@pytest.mark.parametrize("name", ["var", "llamagen-vq"])
@pytest.mark.filterwarnings("ignore")
def test_what_holds_no_flat_dict_of_plain_tensors_is_named(content, match, name):
    _refused(content, CASES[name][0], match)


@pytest.mark.parametrize("name", FAMILIES)
def test_several_networks_of_others_are_named_by_their_parameters(name):
    others = [other for other in FAMILIES if other != name][:2]
    content = {"model": _case(others[0])[1], "ema": _case(others[1])[1]}
    for other, place in zip(others, content, strict=True):
        _refused(content, CASES[name][0], f"found .*{CASES[other][0].network} under '{place}'")


def test_a_dict_that_holds_itself_ends():
    content = {"epoch": 3}
    content["model"] = content
    _refused(content, VAR_WEIGHTS, "an unknown layout")


def test_a_flat_file_takes_no_wrapper():
    assert flat_state_dict({"x": torch.zeros(1)}, "w").taken == ""
    with pytest.raises(CheckpointError, match="model is dict"):
        flat_state_dict({"model": {"x": torch.zeros(1)}}, "w")
