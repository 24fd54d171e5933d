"""The torch-free half of the mind: nouns, promises, and the rules that keep them.

Everything here runs on a robot's computer with numpy and msgpack alone.
"""
