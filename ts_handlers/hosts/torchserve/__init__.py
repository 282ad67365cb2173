"""What touches TorchServe: its context, messages, metrics and describe requests."""
