"""The networks, behind one interface: what each needs around a point, where its outputs lie, and at which spacing it works."""
