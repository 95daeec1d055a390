import pytest
from record_factory import profile

from varient.disturbance import disturbances, speedup_disturbances

QUIET = {"before_1min": 1.9, "after_1min": 1.8, "cores": 2, "threads": 1, "others": 0.02}


def _latency(repeats_s, cpu_s=None):
    quartile = sorted(repeats_s)[len(repeats_s) // 4]
    return {"median_s": sorted(repeats_s)[len(repeats_s) // 2], "iqr_s": sorted(repeats_s)[-1] - quartile,
            "repeats_s": repeats_s, "cpu_s": cpu_s}


@pytest.mark.parametrize(("changes", "signs"), [
    ({}, 0),
    ({"latency": _latency([2.0, 2.0, 2.0], [1.0, 1.0, 1.0])}, 1),       # half of the time it waited
    ({"latency": _latency([1.0, 1.0, 1.0], [0.98, 0.99, 1.0])}, 0),
    ({"latency": _latency([1.0, 1.0, 1.0], [1.9, 1.9, 1.9])}, 0),        # two threads
    ({"latency": _latency([1.0, 1.1, 1.9])}, 1),                         # spread
    ({"load": QUIET | {"others": 0.5}}, 1),
    ({"load": QUIET | {"others": 0.5, "cores": 64}}, 0),
    ({"load": QUIET | {"after_1min": 9.0}}, 0),                          # an average over earlier work too
    ({"load": QUIET | {"after_1min": 9.0, "others": None}}, 1),
])
def test_each_sign_of_other_work(changes, signs):
    record = profile("variant-d8", [1.0, 1.0, 1.0], **{"load": QUIET} | changes)
    assert len(disturbances(record)) == signs


def _times(repeats_s):
    return {"median_s": sorted(repeats_s)[len(repeats_s) // 2], "iqr_s": None, "repeats_s": repeats_s}


@pytest.mark.parametrize(("own_s", "full_s", "signs"), [
    ([1.0, 1.2, 1.6], [2.0, 2.4, 3.2], 0),  # a machine that slows down slows both
    ([1.0, 1.0, 1.0], [2.0, 2.4, 3.2], 1),
])
def test_a_speedup_is_disturbed_where_the_ratios_of_its_turns_spread(own_s, full_s, signs):
    record = profile("variant-d8", own_s, reference=_times(full_s), load=QUIET)
    assert len(speedup_disturbances(record)) == signs and len(disturbances(record)) == 1 - signs
    assert len(speedup_disturbances(record.model_copy(update={"load": record.load.model_copy(
        update={"others": 0.5})}))) == signs + 1


def test_a_speedup_is_disturbed_where_either_side_of_it_waited():
    waited = _latency([2.0, 2.0, 2.0], [1.0, 1.0, 1.0])
    record = profile("variant-d8", [1.0, 1.0, 1.0], reference=waited, load=QUIET)
    assert len(speedup_disturbances(record)) == 1 and disturbances(record) == ()
    assert speedup_disturbances(profile("variant-d8", [1.0], load=QUIET | {"others": 2.0})) == ()  # has no speedup


def test_a_batch_that_does_not_fit_has_no_times_to_disturb():
    record = profile("variant-d8", [1.0], status="out_of_memory", reason="too large", latency=None,
                     decoder_latency=None, load=QUIET | {"others": 2.0})
    assert disturbances(record) == ()
