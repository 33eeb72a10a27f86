"""The Playroom with sound as a Gymnasium ``Env``."""

from collections.abc import Sequence

from vlmreward_envs.goal_env import GoalEnv, observation_space
from vlmreward_envs.playroom import Action
from vlmreward_envs.playroom_sound.dynamics import PlayroomSoundConfig
from vlmreward_envs.playroom_sound.rooms import PlayroomSoundRooms
from vlmreward_envs.playroom_sound.vector_env import known_sound_spaces


class PlayroomSoundEnv(GoalEnv):
    """The Playroom, where objects ring, hum and beep, and goals may have to be heard.

    ## Description
    The room of :class:`~vlmreward_envs.playroom.PlayroomEnv`. Three of its objects have a voice: a
    bell that rings, something that hums, something that beeps. Which ones, and when they sound,
    nothing in the picture tells. A goal is a sentence about

    - what is *seen*: ``"the person is holding the red ball"`` (*Find* or *Lift*);
    - what is *heard* now: ``"a bell is ringing"``;
    - *both*: ``"the person is holding the red ball while a bell is ringing"``;
    - what has happened, as *told* later: ``"a bell rang before something beeped"``.

    ## Actions
    ``Discrete(7)``, as in the Playroom: 0 stay, 1 left, 2 right, 3 up, 4 down, 5 pick up, 6 put
    down.

    ## Observation
    ``Dict``: ``pixels`` uint8 (96, 96, 3); ``audio`` float32 (1600,) in [-1, 1], what was heard
    during the step, mono at 16 kHz, 0.1 s; ``position`` the person's cell (x, y), y downwards.

    ## Reward
    The ground truth: 1.0 on every step after which the goal is true, else 0.0. It is also
    ``info["env_reward"]``, beside ``info["success"]`` and ``info["goal"]``, for logging where a
    model pays the reward.

    ## Termination
    None, so that an ending does not tell a learner the ground truth; ``terminate_on_success=True``
    ends an episode where the goal is true. Truncated after ``max_episode_steps``.

    ## Registered ids
    ``vlmreward/PlayroomSound-v0``

    Args:
        goals: Goal sentences; each episode draws one, and its room contains the named object.
            All HEARD goals if ``None``.
        config: The Playroom, who has a voice, and the pauses.
        max_episode_steps: Steps after which an episode is truncated.
        terminate_on_success: See Termination.
        frame_size: Height and width of the frames, in pixels.
        render_mode: ``"rgb_array"`` or ``None``.

    Example:
        >>> import gymnasium, vlmreward_envs
        >>> env = gymnasium.make("vlmreward/PlayroomSound-v0", goals="a bell is ringing")
        >>> obs, info = env.reset(seed=0)
        >>> obs["audio"].shape, info["goal"]
        ((1600,), 'a bell is ringing')
    """

    def __init__(
        self,
        goals: str | Sequence[str] | None = None,
        *,
        config: PlayroomSoundConfig | None = None,
        max_episode_steps: int = 200,
        terminate_on_success: bool = False,
        frame_size: int = 96,
        render_mode: str | None = "rgb_array",
    ) -> None:
        self.rooms = PlayroomSoundRooms(
            1,
            goals,
            config=config,
            max_episode_steps=max_episode_steps,
            terminate_on_success=terminate_on_success,
            frame_size=frame_size,
        )
        super().__init__(
            self.rooms,
            observation_space(frame_size, known_sound_spaces(self.rooms.config)),
            len(Action),
            render_mode=render_mode,
        )
