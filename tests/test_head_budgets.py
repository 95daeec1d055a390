"""Budgets by head: how many entries stay, by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from varient.head_budgets import HEAD_KINDS, HeadBudgets, Kept, observer_stride
from varient.kv_scheme import KVScheme, Window


def test_budgets_of_the_paper_s_size():
    """30 % of 680 tokens are 204: a quarter of it, 51, and what makes their mean 204."""
    assert [HeadBudgets(30).budget(kind, 680) for kind in HEAD_KINDS] == [51, 357]
    assert [HeadBudgets(50).budget(kind, 680) for kind in HEAD_KINDS] == [85, 595]


def test_what_a_contextual_head_keeps():
    kept = HeadBudgets(30).kept
    assert kept("contextual", length=680, seen=30, first=5, newest=16) == Kept(0, 30, 0)
    assert kept("contextual", length=680, seen=151, first=5, newest=100) == Kept(0, 51, 0)


def test_what_a_structural_head_keeps():
    """r1, r2 and the newest scale in any case, and the best of the rest up to 357."""
    kept = HeadBudgets(30).kept
    assert kept("structural", length=680, seen=255, first=5, newest=100) == Kept(5, 150, 100)
    assert kept("structural", length=680, seen=424, first=5, newest=169) == Kept(5, 183, 169)
    assert HeadBudgets(10).kept("structural", length=680, seen=424, first=5, newest=169) == Kept(5, 0, 169)


@given(percent=st.integers(1, 99), seen=st.integers(1, 700), first=st.integers(0, 5), newest=st.integers(0, 256),
       kind=st.sampled_from(HEAD_KINDS))
def test_never_more_than_was_seen_and_never_more_than_the_budget_without_need(percent, seen, first, newest, kind):
    seen = max(seen, first + newest)
    budgets = HeadBudgets(percent)
    kept, budget = budgets.kept(kind, length=680, seen=seen, first=first, newest=newest), budgets.budget(kind, 680)
    needed = 0 if kind == "contextual" else first + newest
    assert min(kept) >= 0 and sum(kept) == min(seen, max(budget, needed))


@pytest.mark.parametrize(("tokens", "stride", "observed"), [
    (1, 1, 1), (32, 1, 32), (33, 2, 17), (100, 4, 25), (256, 8, 32)])
def test_observed_queries(tokens, stride, observed):
    assert observer_stride(tokens) == stride
    assert len(range(0, tokens, stride)) == observed


def test_heads_of_a_layer():
    assert HeadBudgets(30).heads(3, 5) == {"contextual": (0, 1), "structural": (2, 3, 4)}
    calibrated = KVScheme(budgets=HeadBudgets(30)).with_contextual_heads([[1], [0]]).budgets
    assert [calibrated.heads(layer, 2)["contextual"] for layer in range(2)] == [(1,), (0,)]
    assert KVScheme(bits=8).with_contextual_heads([[1]]) == KVScheme(bits=8)


@pytest.mark.parametrize(("make", "named"), [
    (lambda: HeadBudgets(0), "0 %"), (lambda: HeadBudgets(100), "100 %"),
    (lambda: HeadBudgets(30, ((0,), ())), "equally many"), (lambda: HeadBudgets(30, ((0,), (0, 1))), "equally many"),
    (lambda: HeadBudgets(30, ((1, 0),)), "ascending"),
    (lambda: KVScheme(Window(1), budgets=HeadBudgets(30)), "alone"),
    (lambda: KVScheme(bits=8, budgets=HeadBudgets(30)), "alone"),
    (lambda: KVScheme(last_guided=4, budgets=HeadBudgets(30)), "alone"),
    (lambda: KVScheme(budgets=HeadBudgets(30)).check_heads(1, 64), "one head")])
def test_what_does_not_fit_is_refused_in_one_line(make, named):
    with pytest.raises(ValueError, match=f"^[^\n]*{named}[^\n]*$"):
        make()
