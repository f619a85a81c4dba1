"""What the mixture of experts costs and does; `python -m benchmarks moe` runs all of it."""
