"""Steps of policies of any origin: on a built-in suite, and on recorded episodes. They belong to no recipe, and to no run of one."""

from __future__ import annotations

from components.config.stages import OPEN_LOOP, Stage

# the suite's own module and packages enter its key beside these
SUITE = Stage(
    name="suite",
    title="run a benchmark suite",
    work="A policy acts in closed loop on the cases of a built-in suite.",
    config=("evaluate",),
    modules=("components.evaluation.evaluate",),
    packages=OPEN_LOOP.packages,
)
RECORDED = Stage(
    name="recorded",
    title="run on recorded episodes",
    work="A policy predicts held-out episodes, and the likelihood of what was recorded is measured.",
    config=("evaluate",),
    modules=(*OPEN_LOOP.modules, "components.evaluation.suites.recorded"),
    packages=OPEN_LOOP.packages,
)
