"""What the model says and how it is spelt: depth tokens, traces, action bins; compact ids and published text."""
