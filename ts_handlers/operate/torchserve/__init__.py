"""TorchServe as every command sees it: its configuration as it takes effect, its APIs, its processes."""
