"""CycleGAN: a pair of networks per attribute, one that adds it and one that takes it away (Zhu et al., ICCV 2017)."""
