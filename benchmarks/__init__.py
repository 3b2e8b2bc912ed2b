"""The library against its peers, as ratios taken in one run: `python -m benchmarks`."""
