"""The state of a training between two steps, as pieces of parameters: which of them a process holds, their files, their writing."""
