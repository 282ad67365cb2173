"""transformers' image processors: preprocessor_config.json -> `Preprocessing`."""
