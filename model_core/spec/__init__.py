"""The torch-free half of the model core: data types, contracts, and the rules that keep them.

Everything here runs on a robot's computer with numpy, msgpack and msgspec alone; signatures of the fleet's documents need cryptography.
"""
