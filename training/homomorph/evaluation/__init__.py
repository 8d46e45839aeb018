"""How good morphs are, as figures and as pictures."""
