"""The default recipe: ten losses around a label-conditional critic on decoded pictures."""
