"""One outside system a file: Kubernetes, DVC, S3, SeaweedFS, Great Expectations, child processes."""
