"""The files by which a cell and the agent on its computer speak with each other: permit, contact, update lock, finished episodes."""
