"""What this home, MLflow and the fleet's controller know of what came from what."""
