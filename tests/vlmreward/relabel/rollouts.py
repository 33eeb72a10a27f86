"""Recordings to score again, what was paid for them online, and models that pay."""

import gymnasium as gym
import numpy as np
import torch
import zarr

from vlmreward import (
    ContrastHead,
    CosineHead,
    FakeEncoder,
    Goal,
    GoalBaselineHead,
    RewardModel,
    RewardTiming,
    SoftmaxHead,
    ThresholdHead,
)
from vlmreward.relabel import Episode
from vlmreward.wrappers import VLMReward

SIZE = 4

HEADS = {
    "cosine": CosineHead(),
    "softmax": SoftmaxHead(temperature=0.2),
    "threshold": ThresholdHead(CosineHead(), threshold=0.5),
    "contrast": ContrastHead(),
    "goal_baseline": GoalBaselineHead(alpha=0.5),
}
TIMINGS = {
    "every_step": RewardTiming(),
    "window": RewardTiming(window=3),
    "last_minus_first": RewardTiming(window=3, pooling="last_minus_first"),
    "potential": RewardTiming(discount=0.9),
    "potential_of_a_window": RewardTiming(window=2, pooling="max", discount=1.0),
    "every_third": RewardTiming(score_every=3),
    "episode_end": RewardTiming(score_every="episode_end"),
    "window_at_the_end": RewardTiming(window=4, score_every="episode_end"),
    "success_steps": RewardTiming(success_steps=2),
}


class BatchSensitiveEncoder(FakeEncoder):
    """Rounds a little differently in every size of batch, as a real encoder does."""

    def __init__(self):
        super().__init__()
        self.batch_sizes = []

    def encode_obs(self, obs):
        embedding = super().encode_obs(obs)
        self.batch_sizes.append(len(embedding))
        shift = 1e-6 * len(embedding) * torch.arange(self.embed_dim)
        return torch.nn.functional.normalize(embedding + shift, dim=1)


def reward_model_of(head=None, timing=None):
    goals = [
        Goal(f"a {color} room", negative_prompts=["a white room"], baseline_prompts=["a room"])
        for color in ("red", "blue")
    ]
    return RewardModel(BatchSensitiveEncoder(), goals, head or CosineHead(), timing)


class NoiseEnv(gym.Env):
    """Shows noise of its own seed; episodes differ in length and in how they end."""

    action_space = gym.spaces.Discrete(2)
    observation_space = gym.spaces.Dict(
        {"pixels": gym.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)}
    )
    render_mode = "rgb_array"

    def __init__(self, env_seed=0):
        self._rng = np.random.default_rng(env_seed)
        self.record = []

    def reset(self, *, seed=None, options=None):
        self._time = 0
        self._length = int(self._rng.integers(2, 7))
        self._terminates = bool(self._rng.integers(2))
        self.record.append({"pixels": [], "terminated": False, "truncated": False})
        return self._look(), {}

    def step(self, action):
        self._time += 1
        over = self._time >= self._length
        terminated, truncated = over and self._terminates, over and not self._terminates
        self.record[-1] |= {"terminated": terminated, "truncated": truncated}
        return self._look(), 0.0, terminated, truncated, {}

    def _look(self):
        frame = self._rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        self.record[-1]["pixels"].append(frame)
        return {"pixels": frame}

    def episodes(self, goal_index=0):
        return [
            Episode(np.stack(e["pixels"]), e["terminated"], e["truncated"], goal_index)
            for e in self.record
        ]


def play(reward_model, num_episodes=4, goal_index=0, **settings):
    """Lets the online wrapper pay, and returns what was shown and what was paid."""
    inner = NoiseEnv()
    env = VLMReward(inner, reward_model, goal_index, **settings)
    paid = []
    for _ in range(num_episodes):
        env.reset()
        ended, steps = False, []
        while not ended:
            _, reward, terminated, truncated, info = env.step(0)
            steps.append((reward, info["vlm_score"]))
            ended = terminated or truncated
        paid.append(np.array(steps, dtype=np.float32))
    return inner.episodes(goal_index), paid


def save_flat(path, episodes, save=np.savez, **others):
    """Writes episodes in the layout of a recording."""
    columns = {name: [] for name in ("pixels", "episode_starts", "terminated", "truncated")}
    for episode in episodes:
        num_steps = len(episode)
        columns["pixels"].append(episode.obs["pixels"])
        columns["episode_starts"].append([True, *[False] * num_steps])
        columns["terminated"].append([*[False] * num_steps, episode.terminated])
        columns["truncated"].append([*[False] * num_steps, episode.truncated])
    save(path, **{name: np.concatenate(parts) for name, parts in columns.items()}, **others)
    return path


def save_zarr(path, **arrays):
    group = zarr.create_group(path)
    for name, values in arrays.items():
        group.create_array(name, data=values, chunks=(5, *values.shape[1:]))


def colored(*colors):
    channel = {"red": 0, "green": 1, "blue": 2}
    frames = np.zeros((len(colors), SIZE, SIZE, 3), np.uint8)
    for frame, color in zip(frames, colors, strict=True):
        frame[..., channel[color]] = 255
    return frames


def fake_model(timing=None):
    goals = [Goal("a red room"), Goal("a blue room")]
    return RewardModel(FakeEncoder(), goals, CosineHead(), timing)


def save_recording(folder, save=np.savez, **others):
    episodes = [Episode(colored("blue", "red", "green"), False, True)] * 4
    return save_flat(folder / "rollout.npz", episodes, save, **others)
