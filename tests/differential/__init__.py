"""What a training cannot be told by: the same seeded training without and with a callback, compared to the bit.

`cases` is the matrix of trainings, `modules` what they train, `training` runs one of them in an arm (no callback, an empty
one, WattCallback, or one that misbehaves: `arms`), `trace` writes down all that others see of it, and `compare` says where
two of those differ. `collectives` and `ranks` are the same for several processes.
"""
