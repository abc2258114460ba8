"""What happens to a server when everything around it fails: `make faults`.

Each fault is done to a real process, and what was found is told in a line. What this machine can't do, such as
mounting a small disk without being root, is skipped with a word. The models cost nothing, and their scores can be
computed by hand.
"""
