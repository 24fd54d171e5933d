"""How large a training is before it starts: parameters, tokens, FLOP, memory of each GPU and hours."""
