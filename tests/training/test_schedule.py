import pytest
from hypothesis import given
from hypothesis import strategies as st

from varient.training.schedule import (
    AutomaticSchedule,
    FixedRatioSchedule,
    ProgressiveSchedule,
    ReorderedSchedule,
    Validation,
)


def test_phases_of_table_7_end_where_the_paper_says():
    schedule = ProgressiveSchedule((5, 15, 12))  # d = 4
    assert schedule.epochs == 32
    assert [schedule.phase(ep) for ep in (1, 5, 6, 20, 21, 32)] == [1, 1, 2, 2, 3, 3]


def test_eq5():
    schedule = ProgressiveSchedule((5, 15, 5))
    assert schedule.subnet_probability(5) == 0.2
    assert schedule.subnet_probability(6) == pytest.approx(0.2 + 0.8 / 15)
    assert schedule.subnet_probability(20) == pytest.approx(1.0)
    assert schedule.subnet_probability(21) == 1.0


@given(st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20)).filter(any))
def test_probability_rises_from_at_least_a_fifth_to_at_most_one(phases):
    schedule = ProgressiveSchedule(phases)
    values = [schedule.subnet_probability(ep) for ep in range(1, schedule.epochs + 1)]
    assert values == sorted(values)
    assert all(0.2 <= p <= 1 + 1e-12 for p in values)


def _shares(schedule):
    return [schedule.subnet_probability(epoch) for epoch in range(1, schedule.epochs + 1)]


def test_the_last_phase_may_keep_a_share_of_full_batches():
    schedule = ProgressiveSchedule((5, 15, 12), last=0.8)
    assert _shares(schedule)[:20] == _shares(ProgressiveSchedule((5, 15, 12)))[:20]
    assert _shares(schedule)[20:] == [0.8] * 12


def test_the_same_shares_from_the_last_epoch_to_the_first():
    phased = ProgressiveSchedule((5, 15, 12))
    assert _shares(ReorderedSchedule.reversed(phased)) == _shares(phased)[::-1]
    assert sum(_shares(phased)) / 32 == pytest.approx(0.70, abs=0.005)  # their mean, which p = 0.7 has too


@given(st.integers(0, 10 ** 6))
def test_the_same_shares_in_an_order_that_the_seed_decides(seed):
    phased = ProgressiveSchedule((5, 15, 12))
    shuffled = ReorderedSchedule.shuffled(phased, seed)
    assert sorted(_shares(shuffled)) == sorted(_shares(phased)) and _shares(shuffled) != _shares(phased)
    assert shuffled == ReorderedSchedule.shuffled(phased, seed) != ReorderedSchedule.shuffled(phased, seed + 1)


@pytest.mark.parametrize("epoch", [0, 33])
def test_there_is_no_epoch_outside_a_reordered_training(epoch):
    with pytest.raises(ValueError, match=f"epoch {epoch} is outside 1..32"):
        ReorderedSchedule.reversed(ProgressiveSchedule((5, 15, 12))).subnet_probability(epoch)


@pytest.mark.parametrize("epoch", [0, 26])
def test_an_epoch_outside_the_training_is_refused(epoch):
    with pytest.raises(ValueError, match=f"epoch {epoch} is outside 1..25"):
        ProgressiveSchedule((5, 15, 5)).phase(epoch)


@pytest.mark.parametrize("ratio", [0.0, 0.1, 1.0])
def test_a_fixed_ratio_is_the_same_at_every_epoch(ratio):
    schedule = FixedRatioSchedule(3, ratio)
    assert [schedule.subnet_probability(ep) for ep in (1, 2, 3)] == [ratio] * 3


@pytest.mark.parametrize("ratio", [-0.1, 1.01])
def test_a_ratio_that_is_no_probability_is_refused(ratio):
    with pytest.raises(ValueError, match="outside 0..1"):
        FixedRatioSchedule(3, ratio)


def _probabilities(losses: list[tuple[float, float]], epochs: int = 40) -> list[float]:
    """p of each epoch while the given (subnet, full) losses come in."""
    schedule = AutomaticSchedule(epochs, step=0.2, tolerance=0.01, patience=2)
    seen = [Validation(*pair) for pair in losses]
    return [schedule.subnet_probability(epoch, seen[:epoch - 1]) for epoch in range(1, len(seen) + 2)]


def test_the_first_phase_lasts_while_the_subnet_improves():
    assert _probabilities([(3.0 * 0.9 ** i, 1.0) for i in range(10)]) == [0.2] * 11


def test_then_p_rises_to_one_and_stays():
    p = _probabilities([(3.0, 1.0)] * 10)
    # The first epoch sets the best; two without improvement end the phase; each after that adds a step.
    assert p == pytest.approx([0.2, 0.2, 0.2, 0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0, 1.0])


def test_p_waits_while_the_full_network_loses():
    p = _probabilities([(3.0, 1.0)] * 3 + [(3.0, 1.005), (3.0, 1.02), (3.0, 1.02), (3.0, 1.0)])
    assert p == pytest.approx([0.2, 0.2, 0.2, 0.2, 0.4, 0.4, 0.4, 0.6])


def test_losses_of_other_epochs_are_refused():
    with pytest.raises(ValueError, match="epoch 3 needs the validation losses of 2 epochs, there are 1"):
        AutomaticSchedule(10).subnet_probability(3, [Validation(1.0, 1.0)])
