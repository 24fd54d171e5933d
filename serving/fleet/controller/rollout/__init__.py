"""Rollouts as pure functions of plan, evidence, orders and time: cohorts, evidence, stages, assignments."""
