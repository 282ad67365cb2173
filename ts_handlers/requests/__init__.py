"""One request: bytes to instances, predictions to bytes; plain, JSON, KServe v1 and v2."""
