"""Traces from kinematics: where the tool centre is, and where a calibrated camera sees it."""
