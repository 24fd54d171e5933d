"""Policies are trained: plan, launcher, worker processes and the DeepSpeed engine."""
