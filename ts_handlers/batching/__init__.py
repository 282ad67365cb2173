"""Many requests: lengths to model calls, padding, the way back to each request, and work beside the model."""
