"""Rules of meaning: tasks and outcomes, what stands still, what was recorded twice, and what contradicts itself."""
