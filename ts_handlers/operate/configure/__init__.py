"""configure: archives, CPUs and memory -> config.properties, with the reason of every number."""
