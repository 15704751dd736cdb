"""Readers of published data sets, one file each, and the containers that they come in.

A reader takes a path and a `ReadReport` and yields frames in eV and Å, one at a time, with what a frame
belongs to filled in as far as the set says it. Records that its publishers document as incomplete are
skipped and counted by reason; anything else that cannot be understood is an `InputError` that names file
and record.
"""
