"""Phones with goals and time limits, as plain tensors: the one implementation of the task.

Axis letters: ``B`` phones, ``H W`` pixels.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from vlmreward_envs.goal_tasks import GoalTasks
from vlmreward_envs.launcher.dynamics import (
    LauncherConfig,
    LauncherState,
    reset_phones,
    step_phones,
)
from vlmreward_envs.launcher.gestures import TOUCHES, positions
from vlmreward_envs.launcher.language import ALL_GOALS, COMMON_GOALS, parse_goal
from vlmreward_envs.launcher.rendering import LauncherRenderer


def step_gesture(
    config: LauncherConfig, state: LauncherState, gesture: Int64[Tensor, " B"]
) -> LauncherState:
    """Make one :class:`~vlmreward_envs.launcher.gestures.Gesture` on every phone."""
    for action_type, position in zip(TOUCHES, positions(gesture), strict=True):
        types = torch.full_like(gesture, int(action_type))
        state = step_phones(config, state, types, position)
    return state


class LauncherPhones(GoalTasks[LauncherState]):
    """A batch of phones, each with its own seed, episode count, goal and clock.

    A phone depends on its own seed and episode number alone: alone, among thousands, and on every
    device it is the same. Nothing resets by itself. An action is a
    :class:`~vlmreward_envs.launcher.gestures.Gesture`; for what a finger does step by step, see
    :class:`TouchedPhones`.

    Args:
        num_phones: B.
        goals: Sentences (see :func:`~vlmreward_envs.launcher.language.parse_goal`). Each episode
            draws one uniformly, and its phone has the app. The ten common ones if ``None``.
        config: Pages, apps, folders, pop-ups.
        max_episode_steps: Steps after which an episode is truncated.
        terminate_on_success: End the episode where the goal is true. Off by default: an ending
            would tell a learner the ground truth.
        device: Where everything lives.

    Raises:
        ValueError: A sentence that is no goal, or a number below 1.

    Example:
        >>> phones = LauncherPhones(64, "the Mail app is open")
        >>> phones.reset(torch.arange(64))
        >>> step = phones.step(torch.randint(0, 12, (64,)))
        >>> phones.render().shape
        torch.Size([64, 96, 96, 3])
    """

    def __init__(
        self,
        num_phones: int,
        goals: str | Sequence[str] | None = None,
        *,
        config: LauncherConfig | None = None,
        max_episode_steps: int = 15,
        terminate_on_success: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        if goals is None:
            goals = COMMON_GOALS
        apps = [parse_goal(goal) for goal in ([goals] if isinstance(goals, str) else goals)]
        super().__init__(
            num_phones,
            [ALL_GOALS[app] for app in apps],
            max_episode_steps=max_episode_steps,
            terminate_on_success=terminate_on_success,
            device=device,
        )
        self.config = config or LauncherConfig()
        self._goal_apps = torch.tensor(apps, device=self.device)
        self._renderer = LauncherRenderer(self.config.num_pages, self.device)
        self.state = self._draw()
        self.reset(self.seed)

    @property
    def goal(self) -> Int64[Tensor, " B"]:
        """The app that each phone's goal is about."""
        return self._goal_apps[self.goal_index]

    @property
    def success(self) -> Bool[Tensor, " B"]:
        """Ground truth: is the goal's app in the foreground?"""
        return self.state.app == self.goal

    def render(self, rows: Tensor | slice = slice(None)) -> UInt8[Tensor, "B H W 3"]:
        """Draw the screens (or those selected), as uint8 RGB 0–255."""
        return self._renderer(self.state[rows])

    def known(self) -> dict[str, Tensor]:
        """Return nothing: a phone shows all there is."""
        return {}

    def _draw(self) -> LauncherState:
        return reset_phones(self.config, self.seed, self.episode, self.goal)

    def _act(self, action: Int64[Tensor, " B"]) -> LauncherState:
        return step_gesture(self.config, self.state, action)


class TouchedPhones(LauncherPhones):
    """The same, a step being what AndroidEnv takes for one: a touch, a lift, or a repetition.

    An action is a row of three numbers: an :class:`~vlmreward_envs.launcher.dynamics.ActionType`,
    and the position (x, y) from 0 to 1.
    """

    def _act(self, action: Float[Tensor, "B 3"]) -> LauncherState:
        return step_phones(self.config, self.state, action[:, 0].long(), action[:, 1:])
