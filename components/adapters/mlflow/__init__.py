"""MLflow: runs, the model registry, the local server and the spool that keeps records while it is away."""
