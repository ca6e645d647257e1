"""From a data set to batches whose order depends on the seed alone."""
