"""The parts of the gate: criteria of a candidate alone, comparability, paired tests, what to expect of them, and documents."""
