"""How a registered pair becomes one picture: methods, networks, their weights, stacks of slices."""
