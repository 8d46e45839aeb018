"""CycleGAN (Zhu et al., ICCV 2017): one attribute, one pair of generators."""
