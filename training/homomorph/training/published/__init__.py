"""The recipe published with HomoInterpGAN (Chen et al., CVPR 2019)."""
