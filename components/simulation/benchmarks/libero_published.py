"""LIBERO as published policies see it: the environment's own renderer, images turned by 180 degrees, and the state as eight numbers.

The renderer's rows run from below to above, so an image that is turned by 180 degrees is upright and mirrored. That is the convention of
OpenVLA's evaluation (arXiv 2406.09246, its `experiments/robot/libero`) and of vla-eval 0.8.0, of which this is the observation. The
environment takes it in the first of the 25 simulator steps of a control step, so that it is almost one control step old.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.simulation.benchmarks.libero_states import LiberoStates
from components.simulation.interface import FreeCamera
from components.simulation.libero import Libero, embodiment
from model_core.spec.contract import EmbodimentSpec
from model_core.spec.embodiment import CameraSpec
from model_core.spec.episode import CameraGeometry
from model_core.spec.errors import require
from model_core.spec.types import Observation

# the role of a policy's camera -> the environment's image
VIEWS = {"front": "agentview_image", "wrist": "robot0_eye_in_hand_image"}
STATE, ACTION, HZ = 8, 7, 20.0


class PublishedView(Libero):
    """The observations of published policies. body: the policy's own, whose cameras have the roles of `VIEWS`; only these are rendered."""

    def __init__(self, *, body: EmbodimentSpec, **given: Any) -> None:
        super().__init__(**given)
        self.embodiment = body
        self._views = {camera.name: VIEWS[role_of(camera)] for camera in body.cameras}
        self._seen: Mapping[str, Any] = {}

    @property
    def render_flags(self) -> dict[str, str]:
        """How images are rendered."""
        return {"renderer": "robosuite's own", "orientation": "turned by 180 degrees"}

    def proprio_P(self) -> NDArray[np.float32]:
        """End effector in metres, its turn as axis times angle (0 to pi), and the two fingers."""
        turn_3 = axis_angle(np.asarray(self._seen["robot0_eef_quat"], np.float64))
        return np.array([*self._seen["robot0_eef_pos"], *turn_3, *self._seen["robot0_gripper_qpos"]], np.float32)

    def depth_m(self) -> dict[str, NDArray[np.float32]]:
        """None: published policies see none, and a second renderer in the process spoils the environment's images."""
        return {}

    def geometry(self) -> dict[str, CameraGeometry]:
        """None: a mirrored image has no pinhole."""
        return {}

    def _observation(self, *, render: bool) -> Observation:
        images = {name: np.ascontiguousarray(self._seen[key][::-1, ::-1]) for name, key in self._views.items()} if render else {}
        return Observation(images=images, proprio_P=self.proprio_P(), instruction=self.instruction(self.task))

    def _sees(self) -> Mapping[str, Any]:
        camera = self.embodiment.cameras[0]
        return {
            "use_camera_obs": True,
            "has_offscreen_renderer": True,
            "camera_heights": camera.height,
            "camera_widths": camera.width,
            "camera_names": [key.removesuffix("_image") for key in self._views.values()],
        }

    def _take(self, seen: Mapping[str, Any]) -> None:
        self._seen = seen

    def _command(self, action_A: NDArray[np.float64]) -> NDArray[np.float64]:
        """The gripper has two states, by the sign of its action."""
        return np.array([*action_A[:-1], -1.0 if action_A[-1] < 0 else 1.0])


class PublishedLibero(PublishedView, LiberoStates):
    """`LiberoStates` with the observations of published policies."""


class PublishedDemonstrations(PublishedView):
    """LIBERO's fresh layouts as published policies see them from the front: one camera, for images take most of the time."""

    def __init__(self, *, sim_steps_per_action: int, cameras: tuple[FreeCamera, ...], **given: Any) -> None:
        require(sim_steps_per_action == 1, "LIBERO in the view of published policies: sim_steps_per_action is 1", got=sim_steps_per_action)
        body = published_embodiment(size=cameras[0].width)
        super().__init__(body=body, sim_steps_per_action=1, cameras=cameras, **given)

    def _settle(self, steps: int) -> None:
        """Only the last two steps are rendered: in the first of them the environment may count its image as taken already."""
        inner = self._ready()
        for is_rendered, count in ((False, steps - 2), (True, 2)):
            for key in self._views.values():
                inner.modify_observable(key, "enabled", is_rendered)
            super()._settle(count)


def published_embodiment(*, size: int = 256) -> EmbodimentSpec:
    """The Panda seen by vla-eval's camera in front, whose images have sides of 256 pixels."""
    camera = CameraSpec(name="agentview", width=size, height=size, role="front")
    return replace(embodiment(), name="libero-panda-published", cameras=(camera,))


def role_of(camera: CameraSpec) -> str:
    """Which of LIBERO's two views a policy's camera is, by its role, else by its name; "" for neither."""
    text = f"{camera.role} {camera.name}".lower()
    if "wrist" in text or "eye_in_hand" in text:
        return "wrist"
    return "front" if any(word in text for word in ("front", "agentview")) else ""


def is_published_body(body: EmbodimentSpec) -> bool:
    """Whether a policy of this body can be shown LIBERO as published policies see it."""
    roles = [role_of(camera) for camera in body.cameras]
    is_square = len({(camera.width, camera.height) for camera in body.cameras}) == 1
    sizes = (len(body.proprio), len(body.action), body.control_hz) == (STATE, ACTION, HZ)
    return sizes and is_square and "" not in roles and len(set(roles)) == len(roles) > 0 and body.action.mode == "delta"


def axis_angle(quaternion_4: NDArray[np.float64]) -> NDArray[np.float64]:
    """Axis times angle, 0 to pi, of a quaternion (x, y, z, w); single precision, as vla-eval sends it."""
    turned_4 = -quaternion_4 if quaternion_4[3] < 0 else quaternion_4
    w = float(np.clip(turned_4[3], -1.0, 1.0))
    sine = np.sqrt(1.0 - w * w)
    if sine < 1e-8:
        return np.zeros(3)
    return (turned_4[:3] / sine * (2.0 * np.arccos(w))).astype(np.float32).astype(np.float64)
