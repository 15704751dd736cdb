"""Building blocks of the models: radial functions, equivariant linear maps, node products, core repulsion."""
