"""What stays of an output folder, and what goes: by count, by age and by a budget of the disk.

`recorded` asks ML Metadata which folders Graft made, `stays` says which runs and versions are kept, `plan` what goes,
`remove` takes it away so that a kill at any moment does no harm, and `clean` does all of it.
"""
