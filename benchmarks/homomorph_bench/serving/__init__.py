"""`homomorph bench serving`: a served morph under load, beside the same files without a server, and other servers.

Each system answers the same pair of pictures with the same frames:

- in process: the exported TorchScript, called directly (`exported.py`);
- Triton: what `homomorph serve` starts, over gRPC, as raw requests and through `MorphClient`, and with other engines;
- peers: the same files behind pytriton, LitServe and FastAPI (`peers/`).

`scenarios.py` runs MLPerf's SingleStream, Server and Offline on them; `measurements.py` holds the results.
"""
