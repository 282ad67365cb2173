"""The place of this worker among those of the machine: who they are, which CPUs each has, and their changes."""
