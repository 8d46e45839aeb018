"""The operator `homomorph::interpolate` and the library that holds its kernels."""
