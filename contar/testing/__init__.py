"""Oracles and tiny configs, for tests and benchmarks only."""
