from math import inf

import pytest

from varient.claims.quantity import KINDS, Interval, parse


def _ends(text, kind):
    return [(pytest.approx(low), pytest.approx(high)) for low, high in parse(text, KINDS[kind])]


@pytest.mark.parametrize(("text", "kind", "expected"), [
    ("2.05", "fid", [(2.045, 2.055)]),
    ("2.30", "fid", [(2.295, 2.305)]),
    ("2.3", "fid", [(2.25, 2.35)]),
    ("8.5", "fid", [(8.45, 8.55)]),
    ("132", "fid", [(131.5, 132.5)]),
    ("22.7", "fid", [(22.65, 22.75)]),
    ("0.80", "precision", [(0.795, 0.805)]),
    ("0.8", "precision", [(0.75, 0.85)]),
    ("19.20", "latency_s", [(19.195, 19.205)]),
    ("1e-6 constant", "setting", [(0.5e-6, 1.5e-6)]),
    ("1.0e-6", "setting", [(0.95e-6, 1.05e-6)]),
    ("1.5e3", "parameters", [(1450, 1550)]),
    ("314", "is", [(313.5, 314.5)]),
    ("1.7x", "speedup", [(1.65, 1.75)]),
    ("7.2GB", "kv_mb", [(7150, 7250)]),
    ("28677", "kv_mb", [(28648.323, 28705.677)]),  # 0.1 %
    ("2.0+0.3B", "parameters", [(1.95e9, 2.05e9), (0.25e9, 0.35e9)]),
    ("675M", "parameters", [(674.5e6, 675.5e6)]),
    ("6+4", "steps", [(6, 6), (4, 4)]),
    ("44%", "kv_reduction", [(43.5, 44.5)]),
    ("80%", "kv_reduction", [(77.5, 82.5)]),
    ("40-65%", "kv_reduction", [(37.5, 42.5), (62.5, 67.5)]),
    ("about 30%", "bridge_tokens", [(27.5, 32.5)]),
    ("80.8%", "kv_reduction", [(80.75, 80.85)]),
    ("1", "nested", [(1, 1)]),
    ("fits", "memory_mb", [(0, 46068)]),
    ("> 130", "fid_limit", [(130, inf)]),
    ("≤ 2.2", "late_fid", [(0, 2.2)]),
    ("less than 50%", "gain_after", [(0, 50)]),
    ("over 10", "acceleration", [(10, inf)]),
    ("≈30%", "bridge_tokens", [(27.5, 32.5)]),
    ("OOM", "memory_mb", [(46068, inf)]),
    ("at most 2.2", "late_fid", [(0, 2.2)]),
    ("over 130", "fid_limit", [(130, inf)]),
    ("2.00", "fid", [(1.995, 2.005)]),
    ("3.6-4.6", "early_fid", [(3.55, 3.65), (4.55, 4.65)]),
])
def test_what_a_printed_number_may_stand_for(text, kind, expected):
    assert _ends(text, kind) == expected


def test_neighbours_touch_but_are_not_the_same():
    first, second = (parse(text, KINDS["fid"])[0] for text in ("2.12", "2.13"))
    assert not first.same(second) and first.same(first)
    assert Interval.point(2.125).meets(first) and Interval.point(2.125).meets(second)


def test_sizes_within_a_thousandth_are_the_same():
    printed = [parse(text, KINDS["memory_mb"])[0] for text in ("18869", "18870", "39265", "38977")]
    assert printed[0].same(printed[1]) and not printed[2].same(printed[3])


@pytest.mark.parametrize(("text", "kind", "expected"), [
    ("28677", "kv_mb", [(28676.5, 28677.5)]), ("7.2GB", "kv_mb", [(7150, 7250)]),
    ("80%", "kv_reduction", [(79.5, 80.5)]),
    ("40-65%", "kv_reduction", [(39.5, 40.5), (64.5, 65.5)]), ("over 130", "fid_limit", [(130, inf)]),
])
def test_without_tolerances_the_printed_digits_alone_say_it(text, kind, expected):
    ends = parse(text, KINDS[kind], tolerant=False)
    assert ends == tuple((pytest.approx(low), pytest.approx(high)) for low, high in expected)
