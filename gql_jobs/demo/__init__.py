"""The demo: a client of the public API that shows every kind of job and checks what it promises.

Imports nothing of the server; it starts one as a command, or connects to the one it is given.
"""
