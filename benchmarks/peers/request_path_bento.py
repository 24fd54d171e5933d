"""BentoML's own endpoint for the same question: arrays in and out, with its own client and its own encoding."""

from typing import Annotated

import bentoml
import numpy as np
from bentoml.validators import DType, Shape

from benchmarks.peers.request_path import SIDE, STATE, answer

Frame = Annotated[np.ndarray, Shape((SIDE, SIDE, 3)), DType("uint8")]
State = Annotated[np.ndarray, Shape((STATE,)), DType("float32")]


@bentoml.service(workers=1)
class Plain:
    """One endpoint."""

    @bentoml.api
    def act(self, front: Frame, wrist: Frame, state: State) -> np.ndarray:
        return answer(front, wrist, state)
