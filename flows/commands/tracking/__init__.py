"""What was recorded of runs and model versions: listed, compared, traced back; MLflow is not loaded for it."""
