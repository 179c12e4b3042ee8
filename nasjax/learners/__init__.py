"""Learners: shared weights trained by gradients, and the architectures read out of them."""
