"""Solve for maps, encoders, prototypes and pairs, and place new rows."""
