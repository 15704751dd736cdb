"""Labelled frames made from molecules: conformers, relaxations, distorted and reacting geometries, dimers.

`shards.run` makes shards of frames of a list of `Source`s, `pack.pack` gathers them. The modules, from the
bottom up: `topology`, `force_field`, `labelling`, `sampling`, `relaxation`, `reactions`, `collection`,
`recipes`, `shards`, `pack`; beside them `constitutions` (molecules grown under valence rules) and `scaffolds`
(splits).
"""
