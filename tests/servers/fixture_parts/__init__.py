"""The parts of the fixture server; `fixture.py` beside this folder starts it."""
