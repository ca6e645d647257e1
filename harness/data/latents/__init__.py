"""Latents of an autoencoder, encoded once and read as training asks for them."""
