"""The Launcher as a Gymnasium ``Env``."""

from collections.abc import Sequence

from vlmreward_envs.goal_env import GoalEnv, observation_space
from vlmreward_envs.launcher.dynamics import LauncherConfig
from vlmreward_envs.launcher.gestures import Gesture
from vlmreward_envs.launcher.layout import SCREEN_SIZE
from vlmreward_envs.launcher.phones import LauncherPhones


class LauncherEnv(GoalEnv):
    """A phone whose apps are to be opened, after AndroidEnv (Toyama et al. 2021).

    ## Description
    Home pages of icons and folders, apps that open to screens of their own, and pop-ups in the way.
    A goal names the app to open (Baumli et al. 2023): ``"the Mail app is open"``. The look of the
    phone, what is installed, and what lies where vary by seed.

    ## Actions
    ``Discrete(12)``: tap one of nine places, 0 to 8 row by row; swipe 9 left, 10 right, 11 up. Left
    turns to the next page, up goes home. A pop-up lets through nothing but a tap on its button, at
    place 7.

    ## Observation
    ``Dict`` of ``pixels``: uint8 (96, 96, 3), the screen in RGB.

    ## Reward
    The ground truth: 1.0 on every step after which the app of the goal is in the foreground, else
    0.0. It is also ``info["env_reward"]``, beside ``info["success"]`` and ``info["goal"]``, for
    logging where a language model pays the reward.

    ## Termination
    None, so that an ending does not tell a learner the ground truth; ``terminate_on_success=True``
    ends an episode where the goal is true. Truncated after ``max_episode_steps``.

    ## Registered ids
    ``vlmreward/Launcher-v0``

    Args:
        goals: Goal sentences; each episode draws one, and its phone has the app. The ten common
            ones if ``None``.
        config: Pages, apps, folders, pop-ups.
        max_episode_steps: Gestures after which an episode is truncated.
        terminate_on_success: See Termination.
        render_mode: ``"rgb_array"`` or ``None``.

    Example:
        >>> import gymnasium, vlmreward_envs
        >>> env = gymnasium.make("vlmreward/Launcher-v0", goals="the Mail app is open")
        >>> obs, info = env.reset(seed=0)
        >>> obs["pixels"].shape, info["goal"]
        ((96, 96, 3), 'the Mail app is open')
    """

    def __init__(
        self,
        goals: str | Sequence[str] | None = None,
        *,
        config: LauncherConfig | None = None,
        max_episode_steps: int = 15,
        terminate_on_success: bool = False,
        render_mode: str | None = "rgb_array",
    ) -> None:
        self.phones = LauncherPhones(
            1,
            goals,
            config=config,
            max_episode_steps=max_episode_steps,
            terminate_on_success=terminate_on_success,
        )
        super().__init__(
            self.phones, observation_space(SCREEN_SIZE, {}), len(Gesture), render_mode=render_mode
        )
