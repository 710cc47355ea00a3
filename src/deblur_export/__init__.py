"""Trained image-deblurring networks, exported with proof that they still compute the same thing."""

__version__ = "0.1.0"
