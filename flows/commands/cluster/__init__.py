"""Commands that train on a Kubernetes cluster."""
