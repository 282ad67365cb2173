"""Benchmarks: ts_handlers against what a team would otherwise run, both through a real TorchServe, in one run."""
