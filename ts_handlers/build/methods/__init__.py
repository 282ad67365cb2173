"""Ways to make an engine, one file a way; `catalogue` lists them."""
