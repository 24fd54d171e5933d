"""MuJoCo's off-screen renderer, one per process.

Several live off-screen renderers in one process corrupt each other's images; multisampling, shadows and reflections cost ten times the
rest of an image.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.simulation.interface import FreeCamera, SceneCamera
from model_core.spec.errors import SimulatorError

RENDER_FLAGS = {"shadow": "off", "reflection": "off", "skybox": "off", "offsamples": "0"}


def import_mujoco() -> Any:
    """The mujoco module, set up to render without a screen. Raises `SimulatorError` naming the system package that is missing."""
    os.environ.setdefault("MUJOCO_GL", "osmesa")
    try:
        import mujoco
        from mujoco import gl_context

        # MuJoCo reads the variable at its first import only. Where somebody imported it before us it has chosen a window of the screen, and
        # without a screen its second renderer ends the process (mujoco 3.3.0).
        if os.environ["MUJOCO_GL"] == "osmesa":
            from mujoco.osmesa import GLContext

            gl_context.GLContext = GLContext
    except (ImportError, AttributeError, OSError) as error:
        raise SimulatorError(
            f"MuJoCo cannot draw off screen ({os.environ['MUJOCO_GL']}): {error}. Fix: apt-get install libosmesa6, or run 'make setup'"
        ) from error
    return mujoco


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """What a camera saw in one pass of the renderer. image_HW3: uint8. depth_HW: metres along the camera's axis, not clipped."""

    image_HW3: NDArray[np.uint8]
    depth_HW: NDArray[np.float32]


class OffscreenRenderer:
    """The one off-screen renderer of this process.

    Its graphics context holds the meshes of one model file, so that models of one file share it (the model pointer is exchanged); other
    meshes or another image size close it and open another.
    """

    def __init__(self) -> None:
        self._renderer: Any = None
        self._holds: tuple[str, int, int] | None = None

    def render(self, model: Any, data: Any, camera: FreeCamera | SceneCamera, *, meshes: str) -> View:
        """What the camera sees now. meshes: names the model file; equal names share the meshes.

        MuJoCo's own renderer draws the scene a second time for the depth. Without multisampling, as here, the first pass has left the same
        numbers, bit for bit; with it the depth at edges would be a mixture.
        """
        mujoco = import_mujoco()
        wanted = (meshes, camera.width, camera.height)
        if self._holds != wanted:
            self.close()
            self._renderer = _open_renderer(mujoco, model, camera)
            self._holds = wanted
        self._renderer._model = model
        self._renderer.update_scene(data, _mujoco_camera(mujoco, model, camera), _shapes(mujoco, camera))
        image_HW3 = self._renderer.render()
        buffer_HW = np.empty((camera.height, camera.width), np.float32)
        mujoco.mjr_readPixels(None, buffer_HW, self._renderer._rect, self._renderer._mjr_context)
        return View(image_HW3=image_HW3, depth_HW=_metres(model, buffer_HW[::-1]))

    def close(self) -> None:
        """Free the graphics context; the next image opens another."""
        if self._renderer is not None:
            self._renderer.close()
        self._renderer, self._holds = None, None


RENDERER = OffscreenRenderer()


class Views:
    """What the cameras of one simulator see at this moment: each is drawn once, until `clear` says that the scene has moved."""

    def __init__(self) -> None:
        self._drawn: dict[str, View] = {}

    def clear(self) -> None:
        """The scene has moved, or is another one."""
        self._drawn.clear()

    def of(self, camera: FreeCamera | SceneCamera, model: Any, data: Any, *, meshes: str) -> View:
        """See `OffscreenRenderer.render`."""
        if camera.name not in self._drawn:
            self._drawn[camera.name] = RENDERER.render(model, data, camera, meshes=meshes)
        return self._drawn[camera.name]


def _open_renderer(mujoco: Any, model: Any, camera: FreeCamera | SceneCamera) -> Any:
    model.vis.quality.offsamples = 0
    try:
        renderer = mujoco.Renderer(model, camera.height, camera.width)
    except Exception as error:  # the GL bindings raise whatever the missing library makes them raise
        raise SimulatorError(f"no off-screen renderer: {error}. Fix: apt-get install libosmesa6, or run 'make setup'") from error
    flag = mujoco.mjtRndFlag
    for off in (flag.mjRND_SHADOW, flag.mjRND_REFLECTION, flag.mjRND_SKYBOX):
        renderer.scene.flags[off] = 0
    return renderer


def _metres(model: Any, buffer_HW: NDArray[np.float32]) -> NDArray[np.float32]:
    """Distances of a depth buffer, 1 at the near plane and 0 at the far one, in the precisions of `mujoco.Renderer`."""
    near, far = (np.float32(plane * model.stat.extent) for plane in (model.vis.map.znear, model.vis.map.zfar))
    scale = (far + near) / (far - near) * np.float32(0.5) - np.float32(0.5)
    offset = (np.float32(2) * far * near) / (far - near) * np.float32(0.5)
    return (offset / (buffer_HW.astype(np.float64) + scale)).astype(np.float32)


def _mujoco_camera(mujoco: Any, model: Any, camera: FreeCamera | SceneCamera) -> Any:
    made = mujoco.MjvCamera()
    if isinstance(camera, SceneCamera):
        made.type = mujoco.mjtCamera.mjCAMERA_FIXED
        made.fixedcamid = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, camera.scene_name)
        return made
    made.type = mujoco.mjtCamera.mjCAMERA_FREE
    made.lookat[:] = camera.lookat
    made.azimuth, made.elevation, made.distance = camera.azimuth, camera.elevation, camera.distance
    return made


def _shapes(mujoco: Any, camera: FreeCamera | SceneCamera) -> Any:
    """Which shapes are seen: all but the camera's hidden group. None for MuJoCo's choice."""
    if not isinstance(camera, SceneCamera) or camera.hidden_group is None:
        return None
    seen = mujoco.MjvOption()
    seen.geomgroup[camera.hidden_group] = 0
    return seen
