"""Environments that have the defects of real ones, for machines without those."""

import sys
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest


class StandIn(gym.Env):
    """Shows a picture of its own: the colour of its walls, and where it has got to."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    action_space = gym.spaces.Discrete(2)
    observation_space = gym.spaces.Box(0, 100, (1,), np.float32)
    shape = (6, 8)

    def __init__(self, colour=200, render_mode="rgb_array"):
        self.colour, self.render_mode, self.time = colour, render_mode, 0

    def picture(self):
        pixels = np.full((*self.shape, 3), self.colour, np.uint8)
        pixels[0, : 1 + self.time % self.shape[1]] = (10, 20, 30)
        return pixels

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self._obs(), {}

    def step(self, action):
        self.time += 1
        return self._obs(), 0.0, self.time == 3, False, {}

    def render(self):
        return self.picture()

    def _obs(self):
        return np.array([self.time], np.float32)


class Context:
    """A graphics context. Whoever draws or frees does so in the current one."""

    current = None

    def __init__(self, width=8, height=6):
        self.is_ruined = False

    def make_current(self):
        Context.current = self

    def free(self):
        Context.current = None


class Textures:
    """Those of one context, by numbers that are the same in every context."""

    def __init__(self):
        self.is_freed = False

    def free(self):
        if Context.current is not None and not self.is_freed:
            Context.current.is_ruined = True
        self.is_freed = True


class ForgottenTextures(Textures):
    def __del__(self):
        self.free()


class Viewer:
    """Like that of Gymnasium's MuJoCo: its textures are freed later than its context."""

    def __init__(self):
        self.opengl_context, self.con = Context(), ForgottenTextures()
        self.make_context_current()

    def make_context_current(self):
        self.opengl_context.make_current()


class SharedContext(StandIn):
    """Like Gymnasium's MuJoCo: draws with whatever context is current, and never makes its own so.

    The renderer is made by the first frame. Closing leaves no context current: frames are black.
    """

    def __init__(self, colour=200, size=(6, 8)):
        super().__init__(colour)
        vis = SimpleNamespace(
            global_=SimpleNamespace(offheight=size[0], offwidth=size[1]),
            quality=SimpleNamespace(offsamples=4, shadowsize=4096),
        )
        model = SimpleNamespace(vis=vis, mat_reflectance=np.full(3, 0.5))
        self.mujoco_renderer = SimpleNamespace(
            viewer=None, camera_id=-1, model=model, height=size[0], width=size[1]
        )

    def render(self):
        if self.mujoco_renderer.viewer is None:
            self.mujoco_renderer.viewer = Viewer()
        self.mujoco_renderer.viewer.opengl_context.colour = self.colour
        self.shape = (self.mujoco_renderer.height, self.mujoco_renderer.width)
        return in_the_current_context(self.picture())

    def close(self):
        self.mujoco_renderer.viewer.opengl_context.free()


def in_the_current_context(picture):
    if Context.current is None or Context.current.is_ruined:
        return np.zeros_like(picture)
    picture[-1] = Context.current.colour  # textures are those of the context
    return picture


class UpturnedCamera(SharedContext):
    """Like Meta-World: MuJoCo with a camera mounted upside down."""

    def __init__(self, camera="corner2", up=-0.87):
        super().__init__()
        renderer = self.mujoco_renderer
        renderer.camera_id = 1
        renderer.model.camera = lambda index: SimpleNamespace(name=["topview", camera][index])
        renderer.data = SimpleNamespace(cam_xmat=np.zeros((2, 9)))
        renderer.data.cam_xmat[1, 7] = up

    def render(self):
        return super().render()[::-1, ::-1]


class PhysicsOnly(StandIn):
    """Like an environment of dm_control's suite seen through Shimmy.

    It makes its own context current before it draws or frees, unless by its own record it is.
    """

    def __init__(self, colour=200):
        super().__init__(colour)
        self.render_kwargs = {"height": 6, "width": 8}
        vis = SimpleNamespace(
            global_=SimpleNamespace(offheight=48, offwidth=64),
            quality=SimpleNamespace(offsamples=4, shadowsize=4096),
        )
        self.physics = SimpleNamespace(
            render=self._draw,
            model=SimpleNamespace(vis=vis, mat_reflectance=np.full(3, 0.5)),
            _contexts=None,
        )

    def _make_current(self):
        record = sys.modules["dm_control._render.base"]._CURRENT_CONTEXT_FOR_THREAD
        if record.get("main") != id(self):
            self.physics._contexts.gl.make_current()
            record["main"] = id(self)

    def _draw(self, height, width):
        if self.physics._contexts is None:
            self.physics._contexts = SimpleNamespace(gl=Context(), mujoco=Textures())
            self.physics._contexts.gl.colour = self.colour
        self._make_current()
        self.shape = (height, width)
        return in_the_current_context(self.picture())

    def render(self):
        return self.physics.render(**self.render_kwargs)

    def close(self):
        self._make_current()
        self.physics._contexts.mujoco.free()
        self.physics._contexts.gl.free()


class SharedWalls(StandIn):
    """Like MiniWorld: one display list of walls for all, compiled at the start of an episode."""

    display_list = None

    def __init__(self, colour=200):
        super().__init__(colour)
        self.observation_space = gym.spaces.Box(0, 255, (6, 8, 3), np.uint8)
        self.shadow_window = SimpleNamespace(switch_to=lambda: None)

    def _render_static(self):
        SharedWalls.display_list = self.colour

    def reset(self, *, seed=None, options=None):
        self.time = 0
        self._render_static()
        return self.render(), {}

    def render(self):
        pixels = self.picture()
        pixels[1:] = SharedWalls.display_list
        return pixels

    def _obs(self):
        return self.render()


class Screenshots(StandIn):
    """Like MiniWoB: the picture is in the observation, and the last one of an episode is black."""

    metadata = {"render_modes": ["human"]}  # noqa: RUF012
    shape = (210, 160)
    set_record_screenshots = None

    def __init__(self, subdomain="click-test"):
        super().__init__(render_mode=None)
        self.subdomain = subdomain
        self.observation_space = gym.spaces.Dict(
            {
                "screenshot": gym.spaces.Box(0, 255, (210, 160, 3), np.uint8),
                "utterance": gym.spaces.Text(20, min_length=0),
            }
        )

    def picture(self):
        pixels = np.full((*self.shape, 3), 255, np.uint8)
        pixels[:50] = (255, 255, 0)
        pixels[60 : 70 + self.time, 10:50] = 90
        return pixels

    def render(self):
        return None

    def _obs(self):
        if self.time == 3:
            return {"screenshot": np.zeros((*self.shape, 3), np.uint8), "utterance": ""}
        return {"screenshot": self.picture(), "utterance": "click"}


@pytest.fixture
def stand_ins(monkeypatch):
    """The classes above, in a process in which nothing has drawn."""
    record = SimpleNamespace(_CURRENT_CONTEXT_FOR_THREAD={}, _CURRENT_THREAD_FOR_CONTEXT={})
    monkeypatch.setitem(sys.modules, "dm_control.mujoco", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "dm_control._render.base", record)
    Context.current = SharedWalls.display_list = None
    return SimpleNamespace(
        StandIn=StandIn,
        SharedContext=SharedContext,
        UpturnedCamera=UpturnedCamera,
        PhysicsOnly=PhysicsOnly,
        SharedWalls=SharedWalls,
        Screenshots=Screenshots,
    )
