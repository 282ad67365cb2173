"""Load on an HTTP server: payloads, closed and open loop, latencies. `tune`, `bench` and the benchmarks share it."""
