"""Meta-World's table with two button boxes, a yellow and a blue one: an environment of ours from the package's own parts.

It imports the simulator as it is read, so `two_buttons` reads it when an environment is made.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box
from metaworld.envs.sawyer_button_press_topdown_v3 import SawyerButtonPressTopdownEnvV3
from metaworld.policies import ENV_POLICY_MAP
from numpy.typing import NDArray

from components.simulation.mujoco_renderer import import_mujoco

OTHER = "other_"  # before the names of the second box and its parts
BLUE = (0.0, 0.2, 0.7, 1.0)
PRESSED_M = 0.024  # from the stop, as Meta-World's own task has it
HEIGHT_M = 0.115
BUTTON_TOP = np.array([0.0, 0.0, 0.193])


class TwoButtonsEnv(SawyerButtonPressTopdownEnvV3):
    """The yellow box is Meta-World's own, the blue one a copy of it. goal: the button that is to be pressed, "" (yellow) or `OTHER` (blue).

    A seed draws where both boxes stand and which of them stands left; the goal changes nothing that can be seen.
    """

    def __init__(self, *, goal: str) -> None:
        self._goal = goal
        self.pressed_wrong = False
        super().__init__()
        low, high = np.array([-0.19, 0.80, 0.13, 0.80, 0.0]), np.array([-0.13, 0.90, 0.19, 0.90, 1.0])
        self._random_reset_space = Box(low, high, dtype=np.float64)  # x and y of the left and of the right box, and the side of the yellow

    def _initialize_simulation(self) -> tuple[Any, Any]:
        mujoco = import_mujoco()
        scene, copied = (mujoco.MjSpec.from_file(self.fullpath) for _ in range(2))
        copied.material("btn_yellow").rgba = BLUE
        scene.worldbody.add_frame().attach_body(copied.body("box"), OTHER, "")
        model = scene.compile()
        return model, mujoco.MjData(model)

    def reset_model(self) -> NDArray[np.float64]:
        """Lay out both boxes."""
        self._reset_hand()
        *places_4, side = self._get_state_rand_vec()
        left_3, right_3 = (np.array([*places_4[at : at + 2], HEIGHT_M]) for at in (0, 2))
        yellow_3, blue_3 = (left_3, right_3) if side < 0.5 else (right_3, left_3)
        self.model.body("box").pos, self.model.body(f"{OTHER}box").pos = yellow_3, blue_3
        import_mujoco().mj_forward(self.model, self.data)
        self.obj_init_pos = blue_3 if self._goal else yellow_3
        self._target_pos = self._get_site_pos(f"{self._goal}hole")
        self._obj_to_target_init = abs(self._target_pos[2] - self._get_site_pos(f"{self._goal}buttonStart")[2])
        self.maxDist = self._obj_to_target_init
        self.pressed_wrong = False
        return self._get_obs()

    def evaluate_state(self, obs: NDArray[np.float64], action: NDArray[np.float32]) -> tuple[float, dict[str, Any]]:
        """As the package's own; notes besides whether the other button is down."""
        self.pressed_wrong = self.pressed_wrong or self._is_down(OTHER if not self._goal else "")
        return super().evaluate_state(obs, action)

    def _is_down(self, which: str) -> bool:
        top_3 = self.get_body_com(f"{which}button") + BUTTON_TOP
        return abs(float(self._get_site_pos(f"{which}hole")[2] - top_3[2])) <= PRESSED_M

    def _get_pos_objects(self) -> NDArray[Any]:
        return self.get_body_com(f"{self._goal}button") + BUTTON_TOP

    def _get_quat_objects(self) -> NDArray[Any]:
        return self.data.body(f"{self._goal}button").xquat


def make_expert() -> Any:
    """The package's scripted expert: it goes to the button whose position the environment tells, which is that of the goal."""
    return ENV_POLICY_MAP["button-press-topdown-v3"]()


def make_environment(goal: str) -> Any:
    """A scene whose seeds are drawn from the environment's own generator, as `MetaWorld` expects it."""
    env = TwoButtonsEnv(goal=goal)
    env._set_task_called = True
    env._freeze_rand_vec = False
    env.seeded_rand_vec = True
    env.model.vis.quality.offsamples = 0
    return env
