import doctest
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmreward.backbone import streams as module
from vlmreward.backbone.streams import Stream, pool_mask, stream_mask, streams_of, window_mask

CPU = torch.device("cpu")
COUNTS = st.fixed_dictionaries({stream: st.integers(0, 7) for stream in Stream})


def test_examples_in_docstrings_run() -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_the_mask_of_the_paper() -> None:
    streams = streams_of({Stream.AUDIO: 2, Stream.VIDEO: 1, Stream.FUSION: 1}, CPU)
    expected = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [1, 1, 1, 1]]
    assert stream_mask(streams).int().tolist() == expected


def test_each_pooling_query_reads_its_own_stream() -> None:
    streams = streams_of({Stream.AUDIO: 2, Stream.VIDEO: 1, Stream.FUSION: 2}, CPU)
    expected = [[1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 1]]
    assert pool_mask(streams).int().tolist() == expected


@settings(max_examples=30)
@given(COUNTS, st.integers(1, 5), st.integers(0, 4))
def test_a_window_holds_neighbours_of_one_stream(counts, window, shift) -> None:
    streams = streams_of(counts, CPU)
    mask = window_mask(streams, window, shift).tolist()
    lying = [(stream, place) for stream, count in counts.items() for place in range(count)]
    for row, column in product(range(len(lying)), repeat=2):
        (reader, here), (read, there) = lying[row], lying[column]
        together = (here + shift) // window == (there + shift) // window
        expected = reader == Stream.FUSION or (reader == read and together)
        assert mask[row][column] == expected


@settings(max_examples=30)
@given(COUNTS, st.integers(1, 5), st.integers(0, 4))
def test_a_window_allows_no_more_than_the_stream(counts, window, shift) -> None:
    streams = streams_of(counts, CPU)
    assert not (window_mask(streams, window, shift) & ~stream_mask(streams)).any()
    assert torch.equal(window_mask(streams, 20, 0), stream_mask(streams))


@pytest.mark.parametrize(("shifts", "reach"), [((0, 0, 0, 0), 4), ((0, 2, 0, 2), 10)])
def test_shifted_windows_pass_on_what_they_read(shifts, reach) -> None:
    """From the first token of 12: without shifts the first window, with them two more a layer."""
    streams = streams_of({Stream.VIDEO: 12}, CPU)
    reads = torch.eye(12, dtype=torch.bool)[0]
    for shift in shifts:
        reads = (window_mask(streams, 4, shift) & reads).any(dim=1)
    assert reads.sum() == reach
