"""How the model is run: cache, grammar automaton, decoding. Torch only; nothing here knows a task or a robot."""
