import torch

from vlmreward_envs import counter_rng


def splitmix64(state: int) -> int:
    """The published finaliser in Python's unbounded integers."""
    mask = (1 << 64) - 1
    bits = state & mask
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & mask
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & mask
    return bits ^ (bits >> 31)


def test_uniform_is_the_top_24_bits_of_splitmix64() -> None:
    seeds = [0, 1, 12345, 2**62 - 1]
    drawn = counter_rng.uniform(torch.tensor(seeds), 3)
    for row, seed in enumerate(seeds):
        for index in range(3):
            bits = splitmix64(seed + (index + 1) * 0x9E3779B97F4A7C15)
            assert drawn[row, index].item() == (bits >> 40) / 2**24


def test_first_output_of_the_reference_generator() -> None:
    # SplitMix64 seeded with 0 begins with 0xE220A8397B1DCDAF.
    assert splitmix64(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF
    assert counter_rng.uniform(torch.tensor([0]), 1).item() == (0xE220A8397B1DCDAF >> 40) / 2**24


def test_rows_do_not_depend_on_their_neighbours() -> None:
    seeds = torch.arange(100)
    together = counter_rng.uniform(counter_rng.fold(seeds, 3), 5)
    alone = torch.cat([counter_rng.uniform(counter_rng.fold(s[None], 3), 5) for s in seeds])
    assert torch.equal(together, alone)


def test_streams_differ_and_are_uniform() -> None:
    seeds = torch.arange(20_000)
    first = counter_rng.uniform(counter_rng.fold(seeds, 0), 1)[:, 0]
    second = counter_rng.uniform(counter_rng.fold(seeds, 1), 1)[:, 0]
    correlation = torch.corrcoef(torch.stack((first, second)))[0, 1]
    assert abs(correlation.item()) < 0.03
    counts = torch.bincount((first * 10).long(), minlength=10)
    assert counts.min() > 1800
    assert counts.max() < 2200


def test_integers_cover_their_range() -> None:
    drawn = counter_rng.integers(torch.arange(1000), 2, -1, 2)
    assert set(drawn.flatten().tolist()) == {-1, 0, 1}


def test_choose_distinct_respects_what_is_allowed() -> None:
    allowed = torch.zeros(50, 10, dtype=torch.bool)
    allowed[:, [1, 4, 7, 9]] = True
    chosen = counter_rng.choose_distinct(torch.arange(50), 4, allowed)
    assert all(sorted(row) == [1, 4, 7, 9] for row in chosen.tolist())
    assert len({tuple(row) for row in chosen.tolist()}) > 10
