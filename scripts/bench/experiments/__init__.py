"""The experiments: each lists sides and payloads, and names the ratios that it is about."""
