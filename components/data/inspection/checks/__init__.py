"""The rules of the inspection: one function a rule, over measurements and thresholds only."""
