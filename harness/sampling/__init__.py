"""From a trained network to images: samplers, guidance, grids and sample files."""
