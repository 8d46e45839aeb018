"""Other servers for the same exported files. Each is a program of its own, written as its documentation recommends.

    python -m homomorph_bench.serving.peers.NAME REPOSITORY PORT

All of them receive and return raw bytes: the benchmark compares servers, not encodings of pictures. torch keeps its
default number of threads, one per core.
"""
