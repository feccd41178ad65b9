"""Values and tools that know no method: `Conditional`, specs, rows, labels, devices, threads, seeds."""
