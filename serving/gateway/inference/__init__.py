"""The model and its requests: bundle, golden probes, warm-up, admission, the inference thread."""
