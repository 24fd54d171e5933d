"""Injected faults: what is done to a sound data set, so that the inspection can be measured against it."""
