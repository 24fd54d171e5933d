"""Rollouts that MLflow's alias asks for, as flow runs of Prefect: where one stands, the flow, and the desk that wakes it."""
