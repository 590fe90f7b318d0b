"""Measurements of the runtime: `make bench`. Ratios within one run carry over to other machines, times do not."""
