"""Seeded simulations of the log: every fault that we know of, and a check for every promise.

A run is a function of its seed alone: time is virtual, and whatever happens by chance is drawn from
the seed. So a seed that finds something finds it again.

    python -m tests.simulation --seeds 1000     look for something new
    python -m tests.simulation --seed 17        tell everything that happened in one run
"""
