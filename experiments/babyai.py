"""BabyAI's own missions as goals: one agent learns to go to whatever object it is told.

    python experiments/babyai.py

The in-domain CLIP is trained on frames of episodes in which BabyAI's bot acts, with the missions
that are fulfilled in each frame and where the objects lie.
"""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import minigrid  # noqa: F401 (registers the environments)
import numpy as np
import torch
import tyro
from minigrid.utils.baby_ai_bot import BabyAIBot
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from language_rewards import Options, Sizes, run_experiment
from language_task import LabelledFrames, LanguageTask
from vlmreward import Goal
from vlmreward.capture import FrameCapture
from vlmreward.goal_source import ToldGoals
from vlmreward.pretraining import CaptionedFrames
from vlmreward.wrappers.capture import CaptureFrames

ENVIRONMENT = "BabyAI-GoToLocalS6N3-v0"
EPISODE_STEPS = 16
FULL = Sizes(
    encoder_steps=2000,
    encoder_frames=16_384,
    labelled_frames=4096,
    agent_steps=100_000,
    agent_seeds=3,
    evaluation_episodes=256,
)
_TILE, _CELLS = 10, 6
_NUM_MOVES = 3  # turn left, turn right, go forward: the others do nothing to a GoTo mission
_RANDOM_MOVES, _BOT_STEPS = 0.4, 36
_COLORS = ("red", "green", "blue", "purple", "yellow", "grey")
_KINDS = ("ball", "box", "key")
NAMES = tuple(f"{color} {kind}" for color in _COLORS for kind in _KINDS)
_NOTHING = "there is nothing before the agent"
_DIRECTIONS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])  # of the agent: right, down, left, up

# BabyAI says "a" where two objects are alike, and "the" elsewhere.
GOALS = tuple(
    Goal(
        [f"go to the {name}", f"go to a {name}"],
        negative_prompts=[f"go to the {other}" for other in NAMES if other != name] + [_NOTHING],
    )
    for name in NAMES
)


class GoTo(gym.Wrapper[Any, Any, Any, Any]):
    """A GoTo mission, told in the info, that pays 1 while the agent faces its object.

    Args:
        env: A BabyAI environment with a single GoTo instruction.
        ends_on_success: Whether facing the object ends the episode.
    """

    def __init__(self, env: gym.Env[Any, Any], ends_on_success: bool) -> None:
        super().__init__(env)
        self._ends_on_success = ends_on_success
        self.action_space = gym.spaces.Discrete(_NUM_MOVES)
        directions = gym.spaces.Discrete(len(_DIRECTIONS))
        self.observation_space = gym.spaces.Dict({"direction": directions})

    def reset(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode."""
        obs, info = self.env.reset(**options)
        return self._seen(obs), {**info, "mission": obs["mission"]}

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Take one of the three moves."""
        obs, _, _, truncated, info = self.env.step(action)
        world: Any = self.unwrapped
        wanted = world.instrs.desc
        success = faced(world) == f"{wanted.color} {wanted.type}"
        terminated = success and self._ends_on_success
        return self._seen(obs), float(success), terminated, truncated, info

    def _seen(self, obs: Mapping[str, Any]) -> dict[str, Any]:
        return {"direction": int(obs["direction"])}


def make_env(ends_on_success: bool) -> gym.Env[Any, Any]:
    """Make the environment, with the whole room as its frame."""
    size = (_TILE * _CELLS, _TILE * _CELLS)
    return CaptureFrames(GoTo(_make_room(EPISODE_STEPS), ends_on_success), FrameCapture(size=size))


def _make_room(max_steps: int) -> gym.Env[Any, Any]:
    return gym.make(
        ENVIRONMENT,
        render_mode="rgb_array",
        highlight=False,
        tile_size=_TILE,
        max_steps=max_steps,
    )


def faced(world: Any) -> str | None:
    """Name the object before the agent, if there is one."""
    before = world.grid.get(*world.front_pos)
    return f"{before.color} {before.type}" if before and before.type in _KINDS else None


def captions(num_frames: int, rng: np.random.Generator) -> CaptionedFrames:
    """Draw frames of the bot's episodes; say which missions are fulfilled, and where things are."""
    frames, true, wrong = [], [], []
    for world in _visited(num_frames, rng):
        frames.append(world.render())
        before = faced(world)
        fulfilled = _NOTHING if before is None else f"go to the {before}"
        present = _objects(world)
        said = {f"the {name} is {place}" for name, place in present}
        unsaid = {
            f"the {name} is {other}" for name, place in present for other in _places_but(place)
        }
        unfulfilled = {f"go to the {name}" for name, _ in present} | {_NOTHING}
        true.append([fulfilled, *sorted(said)])
        wrong.append([sorted(unfulfilled - {fulfilled}), *[sorted(unsaid - said)] * len(said)])
    return CaptionedFrames(torch.from_numpy(np.stack(frames)), true, wrong)


def labelled(num_frames: int, rng: np.random.Generator) -> LabelledFrames:
    """Draw frames of the bot's episodes, each with the mission of an object that is there."""
    frames, goals, success = [], [], []
    for world in _visited(num_frames, rng):
        present = [name for name, _ in _objects(world)]
        before = faced(world)
        name = before if before and rng.random() < 0.5 else present[rng.integers(len(present))]
        frames.append(world.render())
        goals.append(NAMES.index(name))
        success.append(before == name)
    reached = np.array(success)
    return LabelledFrames(np.stack(frames), np.array(goals), reached.astype(float), reached)


def _visited(num_frames: int, rng: np.random.Generator) -> Any:
    """Yield the room in states that the bot and random moves lead to."""
    env = _make_room(_BOT_STEPS)
    world: Any = env.unwrapped
    num_seen = 0
    while True:
        env.reset(seed=int(rng.integers(2**31)))
        bot, action, ended = BabyAIBot(world), None, False
        while not ended:
            if num_seen == num_frames:
                env.close()
                return
            yield world
            num_seen += 1
            action = bot.replan(action)
            if rng.random() < _RANDOM_MOVES:
                action = int(rng.integers(_NUM_MOVES))
            _, _, terminated, truncated, _ = env.step(action)
            ended = terminated or truncated
        if num_seen < num_frames:
            yield world
            num_seen += 1


def _objects(world: Any) -> list[tuple[str, str]]:
    """Name the objects of a room, and say where each lies as the agent sees it."""
    ahead = _DIRECTIONS[world.agent_dir]
    right = np.array([-ahead[1], ahead[0]])
    found = []
    for index, item in enumerate(world.grid.grid):
        if item is not None and item.type in _KINDS:
            cell = np.array([index % world.width, index // world.width]) - world.agent_pos
            found.append((f"{item.color} {item.type}", _say(int(cell @ ahead), int(cell @ right))))
    return found


_FORWARD = {1: "ahead", 0: "beside", -1: "behind"}
_SIDE = {1: "to the right", 0: "in line", -1: "to the left"}


def _say(forward: int, side: int) -> str:
    return f"{_FORWARD[int(np.sign(forward))]} and {_SIDE[int(np.sign(side))]}"


def _places_but(place: str) -> list[str]:
    places = [_say(forward, side) for forward in _FORWARD for side in _SIDE if forward or side]
    return [other for other in places if other != place]


def _goal_source(seed: int) -> ToldGoals:
    return ToldGoals(GOALS, key="mission")  # the environment's own seed decides


def _ppo(envs: VecEnv, seed: int) -> BaseAlgorithm:
    return PPO(
        "MultiInputPolicy",
        envs,
        n_steps=32,
        batch_size=512,
        n_epochs=4,
        learning_rate=1e-3,
        gamma=0.97,
        gae_lambda=0.9,
        ent_coef=0.01,
        policy_kwargs={"net_arch": [256, 128]},
        seed=seed,
        device="cpu",
    )


TASK = LanguageTask(
    name="babyai",
    title="BabyAI, GoToLocal with three objects",
    goals=GOALS,
    pays="binary",
    captions=captions,
    labelled=labelled,
    make_env=make_env,
    agents={"ppo": _ppo},
    observes="embedding",
    num_envs=64,
    goal_source=_goal_source,
    limitations=(
        "The agent sees the encoder's embedding of the whole room and of its mission, and the "
        "direction that it looks in.",
        "No mission is held out: the encoder and the agent have met all eighteen objects.",
    ),
)

if __name__ == "__main__":
    run_experiment(TASK, tyro.cli(Options), FULL)
