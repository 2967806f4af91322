"""A model of the gate: a stream with fences, processes that hold the gate, workers and clients, in random histories.

It runs the real fold, claim and gate on a stream that is made up; the promises are checked after every message.
"""
