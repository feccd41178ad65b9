"""Minimise a function of tensors."""
