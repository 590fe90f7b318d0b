"""What a hostile program tries, as data, and the places in which it is tried: `python -m attacks --help`.

Needs the standard library and `sandbox` only, so that it can be carried into a virtual machine.
"""
