"""Rules of time: the clock of the rows, the state behind the action, and the films against the rows."""
