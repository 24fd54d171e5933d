"""Benchmark suites, one file each, behind `components.evaluation.suite.Suite`."""
