import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from algdistill.agents import LoopDetector

CPU = torch.device("cpu")


def judge(episodes, paid=(), **settings):
    """Verdicts on episodes of one task; a step is a letter, and is both seen and done."""
    detector = LoopDetector(1, len(episodes[0]), device=CPU, **settings)
    verdicts = []
    for number, episode in enumerate(episodes):
        for step, letter in enumerate(episode):
            code = torch.tensor([ord(letter)])
            reward = torch.tensor([float((number, step) in paid)])
            detector.observe(code[:, None], code, reward)
        verdicts.append(detector.episode_loops().item())
    return verdicts


@pytest.mark.parametrize(
    ("episode", "loops"),
    [
        ("aaaaaaaaaaaa", True),
        ("abcdefgggggg", True),  # half of the episode
        ("abcdefghhhhh", False),  # less than half
        ("abababababab", True),
        ("xyzxyzabcabc", False),  # twice is not enough
        ("xyzabcabcabc", True),
        ("xyabcabcabca", True),  # it need not end with a whole round
        ("abcdabcdabcd", True),
        ("aaaaaaaaaaab", False),  # it got out
        ("abcdefghijkl", False),
    ],
)
def test_circles_within_an_episode(episode, loops):
    assert judge([episode]) == [loops]


def test_whoever_is_paid_does_not_loop():
    assert judge(["abababababab"], paid={(0, 8)}) == [False]
    assert judge(["abababababab"], paid={(0, 5)}) == [True]
    assert judge(["abababababab"], paid={(0, 6)}) == [False]


def test_same_episodes_are_a_loop_from_the_third_on():
    different = "lkjihgfedcba"
    same = "abcdefghijkl"
    assert judge([same, same, same, same, different, same, same, same]) == [
        False, False, True, True, False, False, False, True,
    ]  # fmt: skip
    assert judge([same] * 5, paid={(1, 3)}) == [False] * 4 + [True]
    assert judge([same] * 3, num_repeats=2) == [False, True, True]


def test_action_and_observation_both_count():
    for seen, done in (([1, 1, 1, 1], [0, 1, 2, 3]), ([0, 1, 2, 3], [1, 1, 1, 1])):
        detector = LoopDetector(1, 4, device=CPU)
        for obs, action in zip(seen, done, strict=True):
            detector.observe(torch.tensor([[obs]]), torch.tensor([action]), torch.zeros(1))
        assert not detector.episode_loops().item()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_tasks_are_judged_apart_whatever_they_show(dtype):
    detector = LoopDetector(3, 6, device=CPU)
    frames = torch.randint(255, (6, 3, 4, 5, 3), generator=torch.Generator().manual_seed(0))
    frames[:, 1] = frames[:1, 1]  # the second shows the same all along
    frames[:, 2] = frames[[0, 1] * 3, 2]  # the third goes to and fro
    actions = torch.full((3, 2), 0.25)
    for frame in frames.to(dtype):
        detector.observe(frame, actions, torch.zeros(3))
    assert detector.episode_loops().tolist() == [False, True, True]


def loops_by_hand(episode, num_repeats):
    """The definition, word for word."""
    for period in range(1, len(episode) + 1):
        for length in range(period * num_repeats, len(episode) + 1):
            tail = episode[len(episode) - length :]
            periodic = all(tail[i] == tail[i - period] for i in range(period, length))
            if periodic and 2 * length >= len(episode):
                return True
    return False


@given(st.text("abc", min_size=1, max_size=14), st.integers(2, 4))
def test_verdicts_are_those_of_the_definition(episode, num_repeats):
    assert judge([episode], num_repeats=num_repeats) == [loops_by_hand(episode, num_repeats)]


def test_misuse_is_named():
    with pytest.raises(ValueError, match="num_repeats=1"):
        LoopDetector(1, 4, device=CPU, num_repeats=1)
    detector = LoopDetector(1, 1, device=CPU)
    with pytest.raises(RuntimeError, match="got 0 steps of an episode, expected 1"):
        detector.episode_loops()
    step = torch.tensor([[0]]), torch.tensor([0]), torch.zeros(1)
    detector.observe(*step)
    with pytest.raises(RuntimeError, match="call `episode_loops`"):
        detector.observe(*step)
