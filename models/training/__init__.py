"""Training of the networks from synthetic pairs; `deblur-export train` runs it."""
