"""Bytes between cell and service: messages, packing, image codec, steering input, trust."""
