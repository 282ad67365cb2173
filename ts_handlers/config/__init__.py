"""model-config.yaml's `handler:` section, the files beside it, and how both are read: strictly."""
