"""What precision costs and gains: every engine of some models, its answers and its speed, as docs/precision.md has it."""
