"""The model and who may use it when: admission, the inference thread, warm-up, golden probes."""
