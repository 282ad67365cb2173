"""The Kubernetes manifests: rendered by the real kustomize, and the files among them that `configure` writes."""
