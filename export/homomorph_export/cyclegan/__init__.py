"""Export of CycleGANs: a model for each direction, and one that changes a picture in several of them."""
