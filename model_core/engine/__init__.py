"""How the model is decoded: cache, grammar automaton and decoding rounds, in torch only, without knowing a task or a robot."""
