"""Projections: what a whole training would cost, from rounds of a part of it, and which setting costs least."""
