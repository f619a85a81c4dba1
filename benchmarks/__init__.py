"""What `make bench` measures. Each file prints one table; docs/benchmarks.md keeps the figures."""
