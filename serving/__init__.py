"""How a robot asks: the policy service (`gateway`) and the robot's side (`workcell`). Knows model_core and nothing else of ours."""
