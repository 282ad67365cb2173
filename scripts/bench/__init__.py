"""Benchmarks that compare ts_handlers with what a team would otherwise run, both through a real TorchServe, in one run."""
