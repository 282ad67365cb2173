"""What runs in the model-build image: export, optimize, quantize, check, archive."""
