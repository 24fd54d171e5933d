"""The policy service (`gateway`), the robot's side (`workcell`) and fault injection, which know model_core and nothing else of ours."""
