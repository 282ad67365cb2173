"""PyTorch: eager modules, TorchScript, packages, and Intel's extension."""
