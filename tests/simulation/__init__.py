"""Seeded simulations of the log: every fault that we know of, and a check for every promise.

A run is a function of its seed alone: time is virtual, and whatever happens by chance is drawn from
the seed. So a seed that finds something finds it again.

    scripts/simulate --seeds 100000     look for something new
    scripts/simulate --seed 17          tell everything that happened in one run
    scripts/simulate --exhaustive       every way through small cases, and how many states they have
"""
