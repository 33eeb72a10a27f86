"""The Playroom as a Gymnasium ``Env``."""

from collections.abc import Sequence

from vlmreward_envs.goal_env import GoalEnv, observation_space
from vlmreward_envs.playroom.dynamics import Action, PlayroomConfig
from vlmreward_envs.playroom.rooms import PlayroomRooms
from vlmreward_envs.playroom.vector_env import known_spaces


class PlayroomEnv(GoalEnv):
    """A room seen from above, a person, and objects to find, lift and put down.

    ## Description
    A 7×7 room with five objects, no two alike in colour (6) and shape (6). After Playhouse's task
    families (Abramson et al. 2020), a goal is a sentence about the state:

    - *Find*: ``"the person is next to the blue key"`` (beside it, not diagonally);
    - *Lift*: ``"the person is holding the red ball"``;
    - *Put*: ``"the green cup is next to the yellow box"`` (both standing).

    Floor colour, object sizes, small offsets and the light vary by seed and change nothing else.

    ## Actions
    ``Discrete(7)``: 0 stay, 1 left, 2 right, 3 up, 4 down, 5 pick up (an object beside the
    person, hands empty), 6 put down (into the first free cell right, below, left, above).
    Walls and objects block the way.

    ## Observation
    ``Dict``: ``pixels`` uint8 (96, 96, 3), the room drawn in RGB; ``position`` the person's cell
    (x, y), y downwards.

    ## Reward
    The ground truth: 1.0 on every step after which the goal is true, else 0.0. It is also
    ``info["env_reward"]``, beside ``info["success"]`` and ``info["goal"]``, for logging where a
    language model pays the reward.

    ## Termination
    None, so that an ending does not tell a learner the ground truth; ``terminate_on_success=True``
    ends an episode where the goal is true. Truncated after ``max_episode_steps``.

    ## Registered ids
    ``vlmreward/Playroom-v0``

    Args:
        goals: Goal sentences; each episode draws one, and its room contains the named objects.
            All 36 FIND goals if ``None``.
        config: Grid size, number of objects, start cell.
        max_episode_steps: Steps after which an episode is truncated.
        terminate_on_success: See Termination.
        frame_size: Height and width of the frames, in pixels.
        render_mode: ``"rgb_array"`` or ``None``.

    Example:
        >>> import gymnasium, vlmreward_envs
        >>> env = gymnasium.make("vlmreward/Playroom-v0", goals="the person is holding the red cup")
        >>> obs, info = env.reset(seed=0)
        >>> obs["pixels"].shape, info["goal"]
        ((96, 96, 3), 'the person is holding the red cup')
    """

    def __init__(
        self,
        goals: str | Sequence[str] | None = None,
        *,
        config: PlayroomConfig | None = None,
        max_episode_steps: int = 50,
        terminate_on_success: bool = False,
        frame_size: int = 96,
        render_mode: str | None = "rgb_array",
    ) -> None:
        self.rooms = PlayroomRooms(
            1,
            goals,
            config=config,
            max_episode_steps=max_episode_steps,
            terminate_on_success=terminate_on_success,
            frame_size=frame_size,
        )
        super().__init__(
            self.rooms,
            observation_space(frame_size, known_spaces(self.rooms.config)),
            len(Action),
            render_mode=render_mode,
        )
