"""Other servers for the same exported files, each a program of its own, written as its documentation would have it.

    python -m homomorph_bench.serving.peers.NAME REPOSITORY PORT

All of them take and give raw bytes, so that what is compared is servers and not encodings of pictures. torch keeps its
default of as many threads as there are cores.
"""
