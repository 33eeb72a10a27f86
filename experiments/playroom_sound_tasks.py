"""Playrooms with sound as tasks for agents, paid along episodes by what is seen and heard.

Agents observe the simulator's state and which goal is theirs; what is paid comes from frames, sound
and words alone, unless the ground truth pays.

Axis letters: ``N`` tasks, ``F`` numbers of an observation.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import one_hot

from trend_tasks import ROOMS, Observe, ScoredTasks, observe_objects
from vlmreward import RewardModel
from vlmreward.reward_stream import RewardStream
from vlmreward_envs.goal_tasks import GoalStep
from vlmreward_envs.playroom import Action
from vlmreward_envs.playroom_sound import PlayroomSoundConfig, PlayroomSoundRooms

SOUND_ROOM_STEPS = 30
Sensor = Literal["microphone", "camera"]
_MODALITY: dict[Sensor, str] = {"microphone": "audio", "camera": "pixels"}


class SoundTasks(ScoredTasks):
    """Playrooms with sound as `BatchedTasks`; episodes go on to their limit.

    Args:
        rooms: The simulators.
        reward_model: Pays, by an encoder of frames alone or of episodes of frames and sound, its
            goals being those of the rooms, in their order; the ground truth pays where there is
            none.
        observe: What the agent observes of the rooms; everything and its goal by default.
        fails: Sensor of the reward that fails halfway through each episode.
    """

    def __init__(
        self,
        rooms: PlayroomSoundRooms,
        reward_model: RewardModel | None = None,
        observe: Observe | None = None,
        fails: Sensor | None = None,
    ) -> None:
        super().__init__(rooms, observe or observe_sound_room, len(Action), ends_when_paid=False)
        self._rooms = rooms
        self._fails = fails
        self._num_steps = 0  # of the present episodes, which all begin and end together
        self._stream = None
        if reward_model is not None:
            self._stream = RewardStream(reward_model, rooms.num_envs, rooms.goal_index.numpy())

    def _pay(self, result: GoalStep) -> Float[Tensor, " N"]:
        if self._stream is None:
            return result.env_reward
        sensed = self._sensed(slice(None))
        if self._fails is not None and self._num_steps >= self.episode_length // 2:
            del sensed[_MODALITY[self._fails]]
        self._num_steps += 1
        paid = self._stream.step(
            sensed,
            terminated=result.terminated.numpy(),
            truncated=result.truncated.numpy(),
        )
        return torch.from_numpy(paid.reward)

    def _begin(self, started: Bool[Tensor, " N"]) -> None:
        self._num_steps = 0
        if self._stream is not None:
            rows = started.nonzero()[:, 0]
            goals = self._rooms.goal_index[rows].numpy()
            self._stream.start(rows.tolist(), self._sensed(rows), goal_index=goals)

    def _sensed(self, rows: Tensor | slice) -> dict[str, Any]:
        return {"pixels": self._rooms.render(rows), "audio": self._rooms.listen(rows)}


def sound_tasks(
    num_tasks: int,
    goals: Sequence[str],
    seed: int,
    reward_model: RewardModel | None = None,
    fails: Sensor | None = None,
) -> SoundTasks:
    """Return Playrooms with sound, each with one of the goals in each episode."""
    rooms = sound_rooms(num_tasks, goals)
    rooms.reset(seed + torch.arange(num_tasks))
    return SoundTasks(rooms, reward_model, fails=fails)


def sound_rooms(num_rooms: int, goals: Sequence[str]) -> PlayroomSoundRooms:
    """Return the rooms that agents are in."""
    config = PlayroomSoundConfig(playroom=ROOMS)
    return PlayroomSoundRooms(
        num_rooms, list(goals), config=config, max_episode_steps=SOUND_ROOM_STEPS
    )


def observe_sound_room(rooms: PlayroomSoundRooms) -> Float[Tensor, "N F"]:
    """Say where each object is, whether it has the look that the goal names, and which goal it is.

    An object that no goal names has no look in common with it.
    """
    goal = one_hot(rooms.goal_index, len(rooms.goals)).float()
    objects = observe_objects(rooms.state, rooms.goal[:, 2:3], rooms.config.playroom.grid_size)
    return torch.cat([objects, goal], dim=1)
