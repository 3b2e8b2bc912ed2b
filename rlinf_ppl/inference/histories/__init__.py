"""The likelihood of behaviour: what was seen of a program's trajectories, all else summed over."""
