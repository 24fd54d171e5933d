"""What the model predicts and how it is encoded: depth tokens, traces, action bins; compact ids and published text."""
