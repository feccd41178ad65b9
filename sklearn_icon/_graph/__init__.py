"""From rows of X to neighbours: exact and approximate search, bandwidths, walks."""
