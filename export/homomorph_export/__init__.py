"""Export: the operator, the served modules, TorchScript, and the Triton model repository."""
