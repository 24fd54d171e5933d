"""The agent of one cell: fetches, verifies and probes releases, swaps between episodes, reports; it only ever connects outwards."""
