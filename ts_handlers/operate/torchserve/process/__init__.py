"""A TorchServe that runs on this machine: its frontend, its workers, and what they take of the machine."""
