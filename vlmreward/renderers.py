"""Renderers that draw a wrong picture without an error, and how each is put right.

A remedy is found by what an unwrapped environment has, not by its class, so that no simulator is
imported here. `vlmreward.frames.render_frame` applies those that fit.

Axes: `H` height, `W` width in pixels.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import weakref
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from numpy.typing import NDArray


class FrameError(ValueError):
    """A frame that must not be scored; the message says what came and what was expected."""


def _do_nothing(env: Any) -> None:
    pass


def _leave_as_it_is(env: Any, frame: UInt8[NDArray[Any], "H W 3"]) -> UInt8[NDArray[Any], "H W 3"]:
    return frame


@dataclass(frozen=True)
class Remedy:
    """What to do about one renderer's defect.

    Attributes:
        name: What to call it in a configuration.
        applies: Tells whether an unwrapped environment has the defect.
        before: Called with the unwrapped environment before it draws.
        after: Returns the right frame for the one that was drawn.
        obs_key: The entry of the observation that is the picture, where `render` returns none.
    """

    name: str
    applies: Callable[[Any], bool]
    before: Callable[[Any], None] = _do_nothing
    after: Callable[[Any, Any], Any] = _leave_as_it_is
    obs_key: str | None = None


REMEDIES: dict[str, Remedy] = {}
"""All registered remedies, in the order in which they are applied."""


def register_remedy(remedy: Remedy) -> None:
    """Makes a remedy apply to every environment it fits, from now on and in this process.

    Example:
        >>> def upside_down(env):
        ...     return hasattr(env, "hangs_from_the_ceiling")
        >>> register_remedy(Remedy("ceiling", upside_down, after=lambda env, frame: frame[::-1]))
        >>> del REMEDIES["ceiling"]

    Raises:
        ValueError: If there is one of that name already.
    """
    if remedy.name in REMEDIES:
        raise ValueError(f"expected a new name, got {remedy.name!r}, which is registered already")
    REMEDIES[remedy.name] = remedy


def remedies_for(env: Any, skip: Collection[str] = ()) -> list[Remedy]:
    """Returns the remedies that an unwrapped environment needs, less those named in `skip`."""
    return [
        remedy for remedy in REMEDIES.values() if remedy.name not in skip and remedy.applies(env)
    ]


def prepare_to_draw(env: Any, skip: Collection[str] = ()) -> None:
    """Does for an unwrapped environment what must be done before it draws.

    Raises:
        FrameError: If a remedy refuses, since what it draws would be wrong.
    """
    for remedy in remedies_for(env, skip):
        remedy.before(env)


def repair(
    env: Any, frame: UInt8[NDArray[Any], "H W 3"], skip: Collection[str] = ()
) -> UInt8[NDArray[Any], "S T 3"]:
    """Returns the right frame for one that an unwrapped environment drew."""
    for remedy in remedies_for(env, skip):
        frame = remedy.after(env, frame)
    return frame


# MuJoCo. Gymnasium's renderer draws, and frees its textures, in whichever graphics context is
# current. dm_control makes its own current before either, unless by its own record it is already.

_viewers_apart: weakref.WeakSet[Any] = weakref.WeakSet()


def _is_mujoco(env: Any) -> bool:
    return hasattr(env, "mujoco_renderer")


def _is_dm_control(env: Any) -> bool:
    """Such as Shimmy's environments, which hand out the physics of dm_control."""
    return hasattr(env, "physics") and hasattr(env.physics, "render")


def _distrust_dm_controls_record() -> None:
    """Has dm_control make its context current when it next draws, or frees what it drew with."""
    if "dm_control.mujoco" in sys.modules:
        record = importlib.import_module("dm_control._render.base")
        record._CURRENT_CONTEXT_FOR_THREAD.clear()
        record._CURRENT_THREAD_FOR_CONTEXT.clear()


def _make_context_current(env: Any) -> None:
    _distrust_dm_controls_record()
    viewer = env.mujoco_renderer.viewer
    if viewer is not None:  # else the first frame makes one, and its context current
        viewer.make_context_current()


def _free_apart(env: Any, frame: UInt8[NDArray[Any], "H W 3"]) -> UInt8[NDArray[Any], "H W 3"]:
    """Keeps the end of a viewer from freeing another's textures, which have the same numbers."""
    viewer = env.mujoco_renderer.viewer
    if viewer is not None and viewer not in _viewers_apart:
        _viewers_apart.add(viewer)
        make_context = type(viewer.opengl_context)
        end = weakref.finalize(viewer, _free_in_a_context_of_its_own, viewer.con, make_context)
        end.atexit = False  # nothing draws any more
    return frame


def _free_in_a_context_of_its_own(textures: Any, make_context: Callable[[int, int], Any]) -> None:
    context = make_context(1, 1)
    context.make_current()
    textures.free()
    context.free()
    _distrust_dm_controls_record()


register_remedy(
    Remedy("mujoco-context", _is_mujoco, before=_make_context_current, after=_free_apart)
)
register_remedy(
    Remedy("dm-control-context", _is_dm_control, before=lambda env: _distrust_dm_controls_record())
)


def draw_at(env: Any, size: tuple[int, int]) -> bool:
    """Has an unwrapped environment draw at a size, where its renderer can.

    Args:
        env: Gymnasium's MuJoCo before its first frame, or dm_control; nothing is done to others.
        size: Height and width, pixels.

    Returns:
        Whether frames will have that size.
    """
    height, width = size
    if _is_mujoco(env):
        renderer = env.mujoco_renderer
        if renderer.viewer is None:
            buffer = renderer.model.vis.global_
            buffer.offheight, buffer.offwidth = height, width
            renderer.height, renderer.width = height, width
        return bool((renderer.height, renderer.width) == size)
    if _is_dm_control(env) and hasattr(env, "render_kwargs"):
        buffer = env.physics.model.vis.global_
        if height <= buffer.offheight and width <= buffer.offwidth:
            env.render_kwargs.update(height=height, width=width)
            return True
    return False


def draw_fast(env: Any) -> None:
    """Has MuJoCo draw without antialiasing, shadows and reflections: another picture, sooner.

    Args:
        env: An unwrapped environment of Gymnasium's MuJoCo or of dm_control's suite that has not
            drawn yet.

    Raises:
        FrameError: If it is another one, or if it has drawn.
    """
    if _is_mujoco(env):
        model, has_drawn = env.mujoco_renderer.model, env.mujoco_renderer.viewer is not None
    elif _is_dm_control(env) and not _compiles_its_model_anew(env):
        model, has_drawn = env.physics.model, env.physics._contexts is not None
    else:
        raise FrameError(
            "expected one of Gymnasium's MuJoCo environments, or one of dm_control's suite, got "
            f"{type(env).__name__}: fast=True is known for those alone"
        )
    if has_drawn:
        raise FrameError(
            "expected an environment that has not drawn, got one whose renderer exists already: "
            "its quality is settled. Ask for fast=True before the first frame"
        )
    model.vis.quality.offsamples = 0
    model.vis.quality.shadowsize = 0
    model.mat_reflectance[:] = 0


def _compiles_its_model_anew(env: Any) -> bool:
    """Tells dm_control's Composer, which forgets at every reset what was changed in the model."""
    return hasattr(getattr(env, "task", None), "root_entity")


def _load_triton_apart() -> None:
    """Keeps Triton from taking symbols of its own LLVM from that of a software renderer.

    Where the renderer is loaded first, as importing dm_control does, torchvision and Torch's
    compiler would crash the process.
    """
    maps = Path("/proc/self/maps")
    if "OpenGL" not in sys.modules or not maps.exists() or "libLLVM" not in maps.read_text():
        return
    flags = sys.getdlopenflags()
    sys.setdlopenflags(flags | os.RTLD_DEEPBIND)
    with contextlib.suppress(ImportError):
        importlib.import_module("triton")
    sys.setdlopenflags(flags)


_load_triton_apart()


# Meta-World. Its cameras named "corner" are mounted upside down.


def _looks_from_an_upturned_corner(env: Any) -> bool:
    camera = getattr(getattr(env, "mujoco_renderer", None), "camera_id", None)
    if camera is None or camera < 0:
        return False
    renderer = env.mujoco_renderer
    if not renderer.model.camera(camera).name.startswith("corner"):
        return False
    # Columns of the rotation: right, up, backwards. A camera that was put right is left alone.
    return bool(renderer.data.cam_xmat[camera].reshape(3, 3)[2, 1] < 0)


register_remedy(
    Remedy(
        "metaworld-corner-camera",
        _looks_from_an_upturned_corner,
        after=lambda env, frame: frame[::-1, ::-1],
    )
)


# MiniWorld. All environments of a process compile their walls into the same display list.


def _render_walls_again(env: Any) -> None:
    env.shadow_window.switch_to()
    env._render_static()


register_remedy(
    Remedy(
        "miniworld-walls",
        lambda env: hasattr(env, "shadow_window") and hasattr(env, "_render_static"),
        before=_render_walls_again,
    )
)


# MiniWoB. Its picture is in the observation, and the goal is written across the top of it.

_HEADER_ROWS = 50


def _cut_off_the_goal(
    env: Any, frame: UInt8[NDArray[Any], "H W 3"]
) -> UInt8[NDArray[Any], "S W 3"]:
    # The flight tasks show a whole page, without the header.
    return frame if env.subdomain.startswith("flight.") else frame[_HEADER_ROWS:]


register_remedy(
    Remedy(
        "miniwob-screenshot",
        lambda env: hasattr(env, "set_record_screenshots") and hasattr(env, "subdomain"),
        after=_cut_off_the_goal,
        obs_key="screenshot",
    )
)
