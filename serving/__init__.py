"""The policy service (`gateway`), the robot's side (`workcell`), its agent (`fleet`) and fault injection; they know model_core alone."""
