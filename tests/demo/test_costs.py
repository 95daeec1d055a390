"""What the demo says of caches and of the paper's size."""

import pytest
from demo_fixtures import CONFIG

from varient.cost.roofline import peak_mib, system_cost
from varient.cost.sizes import MIB
from varient.demo.costs import BATCHES, paper_costs, share_of_work
from varient.plan import DepthPlan


def test_the_papers_own_row_has_its_latency_and_its_cache():
    cost = paper_costs("free-d30", ["l20"])["reference"]["fp16-autocast"]
    assert max(cost.kv_bytes) * 64 / MIB == 28687.5
    assert cost.latency_s["l20"][BATCHES.index(64)] == pytest.approx(3.62)


@pytest.mark.parametrize("policy", ["lean", "reference"])
def test_costs_are_those_of_the_cost_model(policy):
    found = paper_costs("free-d4-n6", ["h100", "l20"])[policy]["fp16"]
    for at, batch in enumerate(BATCHES):
        for gpu in ("h100", "l20"):
            cost = system_cost("free-d4-n6", batch_size=batch, policy=policy, precision="fp16", device_key=gpu)
            assert found.latency_s[gpu][at] == cost.latency_s
            assert found.memory_mib[at] == peak_mib(cost, 16)
            assert max(found.kv_bytes) * batch == cost.kv_cache_bytes


def test_work_is_counted_in_token_layers():
    full, subnet = DepthPlan.full(30, 10), DepthPlan.bridge(30, 4, 6, 10)
    tokens = [side * side for side in CONFIG.patch_nums]
    by_hand = (30 * sum(tokens[:6]) + 4 * sum(tokens[6:])) / (30 * sum(tokens))
    assert share_of_work(CONFIG, full) == 1 and share_of_work(CONFIG, subnet) == by_hand
