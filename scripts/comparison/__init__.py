"""The parts of scripts/compare.py: what is run, how, what follows from it, and how it is shown."""
