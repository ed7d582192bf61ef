"""One node, many front ends: the holder of the data folder's lock serves its node to other processes."""
