"""A drawn arm that reaches for the block that an instruction names: numbers and images of small sets. numpy only.

The tool is a point with an orientation, the scene has a red and a blue block. Every action is a function of what the two images show
and of the instruction: a smooth step of at most `STEP_M` towards the named block, and one of at most `STEP_RAD` towards the slant
of a tool that holds well; the gripper closes where the block is reached. The state says nothing of where the blocks are: a policy has
to look.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

FPS = 20
STEP_M, STEP_RAD = 0.01, 0.08
INSTRUCTIONS = {"red": "grasp the red block", "blue": "grasp the blue block"}
COLOURS = {"red": (220, 40, 40), "blue": (40, 70, 230)}
NAMES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
GRASP_Z = 0.03
SLANT = np.array([0.4, -0.3, 0.5])  # roll, pitch and yaw of a tool that holds well: radians


@dataclass(frozen=True)
class Camera:
    """A pinhole at `position` that looks at `lookat`. Pixel centres lie on whole numbers, row 0 is the upper one."""

    name: str
    width: int
    height: int
    position: tuple
    lookat: tuple
    focal: float

    @property
    def intrinsics_33(self) -> np.ndarray:
        return np.array([[self.focal, 0, (self.width - 1) / 2], [0, self.focal, (self.height - 1) / 2], [0, 0, 1.0]])

    @property
    def world_to_camera_44(self) -> np.ndarray:
        """Metres; axes of the camera: x right, y down, z forward."""
        forward = np.subtract(self.lookat, self.position)
        forward = forward / np.linalg.norm(forward)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        matrix = np.eye(4)
        matrix[:3, :3] = rotation
        matrix[:3, 3] = -rotation @ np.array(self.position)
        return matrix

    def project(self, point) -> np.ndarray:
        x, y, z = (self.world_to_camera_44 @ [*point, 1.0])[:3]
        return self.intrinsics_33[:2, :2] @ [x / z, y / z] + self.intrinsics_33[:2, 2]


FRONT = Camera("front", 64, 48, (0.62, 0.0, 0.42), (0.0, 0.0, 0.09), 105.0)
SIDE = Camera("side", 64, 48, (0.05, -0.6, 0.38), (0.0, 0.0, 0.1), 105.0)
CAMERAS = (FRONT, SIDE)  # of one size, as a policy needs them
UPRIGHT = (FRONT, replace(SIDE, width=48, height=64))  # the side camera is turned by a quarter


def _rotation(roll: float, pitch: float, yaw: float) -> np.ndarray:
    (a, b, c), (d, e, f) = np.cos([roll, pitch, yaw]), np.sin([roll, pitch, yaw])
    about_x = np.array([[1, 0, 0], [0, a, -d], [0, d, a]])
    about_y = np.array([[b, 0, e], [0, 1, 0], [-e, 0, b]])
    about_z = np.array([[c, -f, 0], [f, c, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def draw(camera: Camera, blocks: dict, state) -> np.ndarray:
    """The camera's image, uint8 (H, W, 3): table, blocks, shaft and fingers of the tool."""
    image = np.full((camera.height, camera.width, 3), 150, np.uint8)
    rows, columns = np.mgrid[: camera.height, : camera.width]

    def disc(point, radius_m, colour) -> None:
        u, v = camera.project(point)
        depth = (camera.world_to_camera_44 @ [*point, 1.0])[2]
        image[(columns - u) ** 2 + (rows - v) ** 2 <= (camera.focal * radius_m / depth) ** 2] = colour

    for name, (x, y) in blocks.items():
        disc((x, y, 0.02), 0.04, COLOURS[name])
    tip, axes, opening = np.asarray(state[:3]), _rotation(*state[3:6]), state[6]
    for along in np.linspace(0.02, 0.1, 16):
        disc(tip + axes @ [0, 0, along], 0.014, (20, 20, 20))
    for side, colour in ((-1, (250, 250, 250)), (1, (250, 220, 40))):
        for along in np.linspace(0.0, 0.03, 6):
            disc(tip + axes @ [0, side * (0.014 + 0.026 * opening), along], 0.016, colour)
    return image


@dataclass(frozen=True)
class Demonstration:
    """One episode: instruction, and (T, 7) of what the tool was and what it was told; camera -> (T, H, W, 3)."""

    instruction: str
    state_T7: np.ndarray
    action_T7: np.ndarray
    images: dict

    def __len__(self) -> int:
        return len(self.state_T7)


def demonstration(number: int, *, seed: int, normalised: bool, cameras: tuple = CAMERAS, limit: int = 60) -> Demonstration:
    """Episode `number`. normalised: steps as fractions -1..1 of the limits, and gripper -1 open, +1 closed; else metres and radians a
    step, and gripper 1 open, 0 closed."""
    rng = np.random.default_rng([seed, number])
    named = sorted(INSTRUCTIONS)[number % 2]
    blocks = {"red": rng.uniform([-0.09, -0.14], [0.05, -0.04]), "blue": rng.uniform([-0.05, 0.04], [0.09, 0.14])}
    goal = np.array([*blocks[named], GRASP_Z])
    start = rng.uniform([-0.1, -0.14, 0.12], [0.1, 0.14, 0.2])
    state = np.concatenate([start, SLANT + rng.normal(0, 0.3, 3), [1.0]])
    states, actions, images, held = [], [], {camera.name: [] for camera in cameras}, 0
    while held < 4 and len(states) < limit:
        error = goal - state[:3]
        near = np.linalg.norm(error) < 0.012
        turn = np.concatenate([np.tanh(error / 0.05), np.tanh((SLANT - state[3:6]) / 0.3)])
        step = turn * ([STEP_M] * 3 + [STEP_RAD] * 3)
        action = np.append(turn, 1.0 if near else -1.0) if normalised else np.append(step, 0.0 if near else 1.0)
        states.append(state)
        actions.append(action)
        for camera in cameras:
            images[camera.name].append(draw(camera, blocks, state))
        opening = np.clip(state[6] + (-0.35 if near else 0.35), 0.0, 1.0)
        state = np.append(state[:6] + step, opening)
        held += near
    return Demonstration(
        INSTRUCTIONS[named],
        np.array(states, np.float32),
        np.array(actions, np.float32),
        {name: np.stack(frames) for name, frames in images.items()},
    )


def demonstrations(count: int, *, seed: int, normalised: bool, cameras: tuple = CAMERAS) -> Iterator[Demonstration]:
    return (demonstration(number, seed=seed, normalised=normalised, cameras=cameras) for number in range(count))


def calibration() -> dict:
    """The cameras as a document: intrinsics in pixels, world_to_camera in metres with OpenCV axes (x right, y down, z forward)."""
    return {
        "convention": "pixel = intrinsics @ (world_to_camera @ [x, y, z, 1])[:3], divided by its third number; pixel centres on whole "
        "numbers, row 0 at the top; metres; axes of a camera: x right, y down, z forward",
        "tool_centre": "dimensions x, y, z of observation.state, in the world frame",
        "cameras": {
            camera.name: {
                "width": camera.width,
                "height": camera.height,
                "intrinsics": camera.intrinsics_33.tolist(),
                "world_to_camera": camera.world_to_camera_44.tolist(),
            }
            for camera in CAMERAS
        },
    }
