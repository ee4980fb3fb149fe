"""What a run will cost, from a small probe: an even sample, the cost of a batch, peak memory, estimate and truth."""
