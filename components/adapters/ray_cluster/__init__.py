"""A labelling on a Ray cluster as Kubernetes sees it: manifests of KubeRay and Kueue, and the fields that these have."""
