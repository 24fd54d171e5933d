"""What a run is configured with: recipes, records of results, the ports that adapters implement."""
