"""D(p || q), and every way to compute its two sums: over the edges of p and over all pairs."""
