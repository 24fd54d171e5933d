"""What the controller remembers, in any database of SQLAlchemy: cells, episodes, rollouts, kills, releases, and the log of orders."""
