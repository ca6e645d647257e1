"""The diffusion transformer, its attention variants and training objectives, in torch."""
