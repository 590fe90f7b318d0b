"""What the runtime decides, as values: no I/O, no clock, no randomness of its own.

Time comes in as monotonic seconds (wall seconds where a date is compared), randomness as a number.
"""
