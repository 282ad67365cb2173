"""Models of images that somebody else exported or saved: ONNX, TorchScript, torch.export, state dicts."""
