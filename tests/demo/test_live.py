"""A state as pictures and numbers."""

from itertools import pairwise

import numpy as np
import pytest
from demo_fixtures import CONFIG, load_engine

from varient.cost.roofline import system_cost
from varient.cost.sizes import MIB
from varient.demo.live import Live, framed
from varient.demo.state import begin, read


@pytest.fixture(scope="module")
def live():
    return Live(load_engine())


def _state(**changed):
    start = begin(CONFIG, 4) | {"images": 3}
    return read(start | {name.replace("_", " "): value for name, value in changed.items()}, CONFIG)


def test_moving_d_and_n_moves_pictures_caches_and_numbers(live):
    shown = [live.show(state, "l20") for state in (_state(), _state(a_N=0), _state(a_d=30))]
    for before, after in pairwise(shown):
        assert not np.array_equal(before.grids[0], after.grids[0])
        assert not np.array_equal(before.grown[0], after.grown[0])
        assert before.caches[0] != after.caches[0] and before.rows != after.rows
        assert before.caches[1] == after.caches[1]
    assert shown[0].differing and not shown[2].differing
    assert np.array_equal(*shown[2].grids)  # the same plan twice, and no frame


def test_numbers_are_those_of_the_run_and_of_the_cost_model(live):
    shown = live.show(_state(b_cache="reference"), "h100")
    rows = {name: cells for name, *cells in shown.rows}
    peaks = [f"{max(sizes) / 1024:,.1f}" for sizes in shown.caches]
    assert rows["Peak of the KV cache here, KiB, counted"] == peaks
    costs = [system_cost("free-d4-n6", policy="lean", device_key="h100"),
             system_cost("free-d30", policy="reference", device_key="h100")]
    assert rows["VAR-d30, 64 images: KV cache, MiB"] == [f"{cost.kv_cache_bytes / MIB:,.0f}" for cost in costs]
    (time_row,) = (cells for name, cells in rows.items() if name.endswith("NVIDIA H100 80 GB SXM, s, predicted"))
    assert time_row == [f"{cost.latency_s:.3g}" for cost in costs]


def test_times_are_medians_of_the_last_runs_of_the_same_plan(live):
    other = Live(live.engine)
    state = _state()
    for runs in (1, 2, 3):
        rows = {name: cells for name, *cells in other.show(state, "l20").rows}
        assert [cell.split()[1] for cell in rows["Time here, s, measured (median; runs)"]] == [f"({runs})"] * 2


def test_without_guidance_there_is_half_a_cache(live):
    guided, plain = live.show(_state(), "l20"), live.show(_state(guidance=0), "l20")
    assert [[size / 2 for size in sizes] for sizes in guided.caches] == [list(sizes) for sizes in plain.caches]
    rows = {name: cells for name, *cells in plain.rows}
    assert rows["Peak of the KV cache here, KiB, counted"] == [f"{max(sizes) / 1024:,.1f}" for sizes in plain.caches]


def test_frames_mark_the_images_that_differ():
    images = np.full((3, 3, 8, 8), 7, np.uint8)
    page = framed(images, [False, True, False], "#0072B2", columns=2)
    cell = 8 * 6 + 4
    assert page.shape == (2 * cell, 2 * cell, 3)
    assert page[0, 0].tolist() == [255] * 3 and page[0, cell].tolist() == [0x00, 0x72, 0xB2]
    assert (page[2:cell - 2, 2:cell - 2] == 7).all() and (page[cell:, cell:] == 255).all()
