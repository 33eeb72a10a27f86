"""What lies between an encoder and a reward, and what need not be encoded at all.

    python benchmarks/reward_throughput.py [--as-json]

Weights are random; they do not change the speed. Every ratio is of two things that took turns in
this run. The int8 rows need torchao and a CPU, those of torch.compile a C++ compiler and minutes.
"""

import importlib.util
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import minigrid  # noqa: F401 (registers its environments)
import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from timing import Row, interleaved, row, show
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from vlmreward import (
    CosineHead,
    Goal,
    OpenCLIPEncoder,
    RewardModel,
    SoftmaxHead,
    ThresholdHead,
    load_encoder,
)
from vlmreward.encoders import CachedEncoder
from vlmreward.wrappers.sb3 import VecVLMReward

SIZE = 480  # height and width of the frames, pixels
NUM_ENVS = 16
GOAL = Goal("a room with a green square", negative_prompts=["an empty room"])
Frames = NDArray[np.uint8]


class PreparedFrames(VecEnv):
    """Environments that cost nothing: every step returns the same observations."""

    def __init__(self, frames: Frames) -> None:
        self.obs = {"pixels": frames}
        space = gym.spaces.Dict({"pixels": gym.spaces.Box(0, 255, frames.shape[1:], np.uint8)})
        super().__init__(len(frames), space, gym.spaces.Discrete(2))

    def reset(self) -> Any:
        """See `VecEnv`."""
        return self.obs

    def step_async(self, actions: NDArray[Any]) -> None:
        """See `VecEnv`."""

    def step_wait(self) -> Any:
        """See `VecEnv`."""
        zeros = np.zeros(self.num_envs)
        return self.obs, zeros, zeros > 0, [{} for _ in range(self.num_envs)]

    def close(self) -> None:
        """See `VecEnv`."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """See `VecEnv`."""
        del indices
        return [getattr(self, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """See `VecEnv`."""

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> Any:
        """See `VecEnv`."""
        raise NotImplementedError(method_name)

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """See `VecEnv`."""
        del wrapper_class, indices
        return [False] * self.num_envs


def finish(values: torch.Tensor) -> int:
    """Waits for a device, and counts rows."""
    values.cpu()
    return len(values)


def around_the_encoder(encoder: OpenCLIPEncoder, frames: Frames, num_rounds: int) -> list[Row]:
    """The reward model around its encoder, and the SB3 wrapper around the reward model."""
    reward_model = RewardModel(encoder, GOAL, CosineHead())
    dtype = next(encoder.model.visual.parameters()).dtype
    pixels = encoder.preprocess(torch.from_numpy(frames).to(encoder.device)).to(dtype)

    @torch.no_grad()
    def bare() -> int:
        return finish(encoder.model.encode_image(pixels))

    speed = interleaved({"bare": bare, "model": lambda: finish(reward_model(frames))}, num_rounds)
    few = frames[:NUM_ENVS]
    venv = VecVLMReward(PreparedFrames(few), reward_model)
    venv.reset()
    actions = np.zeros(NUM_ENVS, dtype=int)
    steps = interleaved(
        {
            "model": lambda: finish(reward_model(few)),
            "sb3": lambda: len(venv.step(actions)[1]),
        },
        num_rounds,
    )
    frame = f"{SIZE}×{SIZE} frames"
    return [
        row(f"RewardModel, {len(frames)} {frame}", "frames/s", speed["model"],
            "encode_image alone, preprocessed", speed["bare"]),
        row(f"VecVLMReward, {NUM_ENVS} environments", "frames/s", steps["sb3"],
            f"RewardModel, {NUM_ENVS} {frame}", steps["model"]),
    ]  # fmt: skip


def preprocessing(encoder: OpenCLIPEncoder, frames: Frames, num_rounds: int) -> Row:
    """Bytes resized as bytes, against floats from the start."""
    preprocess, tensor = encoder.preprocess, torch.from_numpy(frames)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (preprocess.mean, preprocess.std))

    def float_first() -> int:
        values = tensor.permute(0, 3, 1, 2).contiguous().float() / 255
        mode = InterpolationMode(preprocess.interpolation)
        values = tv.resize(values, list(preprocess.size), interpolation=mode, antialias=True)
        return len((values - mean) / std)

    speed = interleaved(
        {"ours": lambda: len(preprocess(tensor)), "float": float_first}, 3 * num_rounds
    )
    name = f"preprocessing, {len(frames)} frames of {SIZE}×{SIZE}"
    return row(name, "frames/s", speed["ours"], "float first", speed["float"])


def caching(encoder: OpenCLIPEncoder, frames: Frames, num_rounds: int) -> list[Row]:
    """The cache where some share of a batch was seen before."""
    count = 0

    def works(percent: int) -> Callable[[], int]:
        cached = CachedEncoder(encoder)
        cached.encode_obs({"pixels": frames})
        num_new = len(frames) - round(len(frames) * percent / 100)

        def work() -> int:
            nonlocal count
            batch = frames.copy()
            for index in range(num_new):  # a counter in the first pixels makes a frame new
                count += 1
                batch[index, 0, :2].flat[:4] = np.frombuffer(count.to_bytes(4, "little"), np.uint8)
            return finish(cached.encode_obs({"pixels": batch}))

        return work

    shares = (0, 50, 95)
    speed = interleaved(
        {"none": lambda: finish(encoder.encode_obs({"pixels": frames}))}
        | {str(percent): works(percent) for percent in shares},
        num_rounds,
    )
    return [
        row(f"CachedEncoder, {percent} % repeats", "frames/s", speed[str(percent)],
            "no cache", speed["none"])
        for percent in shares
    ]  # fmt: skip


def quantised(architecture: str, frames: Frames, num_rounds: int) -> Row:
    """8-bit linear layers, against single precision."""

    def works(precision: Any) -> Callable[[], int]:
        encoder = load_encoder(architecture, pretrained="random", device="cpu", precision=precision)
        return lambda: len(encoder.encode_obs({"pixels": frames}))

    speed = interleaved({"fp32": works("fp32"), "int8": works("int8")}, num_rounds)
    return row("int8", "frames/s", speed["int8"], "fp32", speed["fp32"])


def compiled(frames: Frames, num_rounds: int, label: str, **settings: Any) -> list[Row]:
    """A tower that torch.compile made faster or not, and how long that took without its cache."""
    encoders, seconds = {}, {}
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        for kind, compile in (("eager", False), ("compiled", True)):
            began = time.perf_counter()
            encoders[kind] = load_encoder(**settings, compile=compile)
            seconds[kind] = time.perf_counter() - began
        works = {
            kind: lambda encoder=encoder: finish(encoder.encode_obs({"pixels": frames}))
            for kind, encoder in encoders.items()
        }
        speed = interleaved(works, num_rounds)
    return [
        row(f"compile, {label}", "frames/s", speed["compiled"], "not compiled", speed["eager"]),
        row(
            f"loading with compile, {label}", "s", seconds["compiled"], "without", seconds["eager"]
        ),
    ]


def roll_out(encoder: OpenCLIPEncoder, num_steps: int) -> Row:
    """A random agent in a small MiniGrid; both pay the same, bit for bit, or this fails."""
    envs = [gym.make("MiniGrid-Empty-5x5-v0", render_mode="rgb_array") for _ in range(NUM_ENVS)]
    for seed, env in enumerate(envs):
        env.reset(seed=seed)
        env.action_space.seed(seed)
    cached = CachedEncoder(encoder)
    reward_models: list[RewardModel] = []
    seconds = dict.fromkeys(("environment", "plain", "cached"), 0.0)
    num_paid = 0
    for _ in range(num_steps):
        began = time.perf_counter()
        for env in envs:
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            if terminated or truncated:
                env.reset()
        frames = np.stack([np.asarray(env.render()) for env in envs])
        seconds["environment"] += time.perf_counter() - began
        if not reward_models:
            head = ThresholdHead(SoftmaxHead(temperature=0.01), _between(encoder, frames))
            reward_models = [RewardModel(each, GOAL, head) for each in (encoder, cached)]
        rewards = []
        for name, reward_model in zip(("plain", "cached"), reward_models, strict=True):
            began = time.perf_counter()
            rewards.append(reward_model(frames).cpu())
            seconds[name] += time.perf_counter() - began
        assert torch.equal(*rewards)
        num_paid += int(rewards[0].sum())
    assert 0 < num_paid < num_steps * NUM_ENVS
    num_frames = num_steps * NUM_ENVS
    name = f"roll-out of {num_frames} steps, {cached.statistics.misses} distinct frames, cache"
    speeds = [num_frames / (seconds["environment"] + seconds[key]) for key in ("cached", "plain")]
    return row(name, "steps/s", speeds[0], "no cache, equal rewards", speeds[1])


def _between(encoder: OpenCLIPEncoder, frames: Frames) -> float:
    """A threshold in the widest gap between the scores of some frames."""
    head = ThresholdHead(SoftmaxHead(temperature=0.01), threshold=0.5)
    score = RewardModel(encoder, GOAL, head).score(frames).score.sort().values
    widest = int(score.diff().argmax())
    return float(score[widest : widest + 2].mean())


def main(
    *,
    architecture: str = "ViT-B-32",
    device: str | None = None,
    batch_size: int = 32,
    num_rounds: int = 4,
    num_steps: int = 32,
    num_threads: int = 1,
    as_json: bool = False,
) -> None:
    """Measure and print.

    Args:
        architecture: Of open_clip.
        device: Of the encoder; a CUDA device if there is one, else the CPU.
        batch_size: Frames scored at once, apart from environments.
        num_rounds: How often each thing is done; the fastest counts.
        num_steps: Of the roll-out, in each of 16 environments.
        num_threads: Of torch.
        as_json: Print one JSON object instead of a table.
    """
    torch.set_num_threads(num_threads)
    shape = (max(batch_size, NUM_ENVS), SIZE, SIZE, 3)
    frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    encoder = load_encoder(architecture, pretrained="random", device=device)
    batch = frames[:batch_size]
    rows = [
        *around_the_encoder(encoder, batch, num_rounds),
        preprocessing(encoder, batch, num_rounds),
        *caching(encoder, batch, num_rounds),
    ]
    if importlib.util.find_spec("torchao"):
        rows.append(quantised(architecture, batch, num_rounds))
    if shutil.which(os.environ.get("CXX", "g++")):
        vit = {"name": architecture, "pretrained": "random"}
        small = np.ascontiguousarray(batch[:, :96, :96])
        rows += compiled(batch, num_rounds, architecture, device=device, **vit)
        rows += compiled(small, 8 * num_rounds, "playroom", device=device, name="playroom")
        if importlib.util.find_spec("torchao"):
            int8 = {"device": "cpu", "precision": "int8"}
            rows += compiled(batch, num_rounds, f"{architecture} in int8", **int8, **vit)
    rows.append(roll_out(encoder, num_steps))
    show(rows, as_json=as_json)


if __name__ == "__main__":
    tyro.cli(main)
