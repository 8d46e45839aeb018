"""`homomorph bench serving`: its systems and requests, and a short run against the real server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from homomorph.models.config import CompactConfig, ModelConfig
from homomorph.models.morph import MorphModel
from homomorph.progress import silent
from homomorph.runs.run import save_model
from homomorph_bench.serving import perf_analyzer, process_usage, scenarios, systems
from homomorph_bench.serving.load_generator import RequestFailed
from homomorph_bench.serving.peers import wire
from homomorph_bench.serving.peers.process import Peer
from homomorph_bench.serving.transports import HttpRequest
from homomorph_export.exporter import export_run

_ANALYZER = """#!{python}
import pathlib, sys
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
data = pathlib.Path(words["--input-data"])
assert sorted(path.name for path in data.iterdir()) == ["SOURCE", "STRENGTHS", "TARGET"]
assert (data / "STRENGTHS").stat().st_size == 5 * 3 * 4
assert "TARGET:16,16,3" in sys.argv and words["--concurrency-range"] == "4:4:1" and words["-p"] == "1500"
if words["-u"] == "nobody:1":
    sys.exit("failed to connect")
pathlib.Path(words["-f"]).write_text("Concurrency,Inferences/Second,Client Send\\n4,41.5,7\\n")
"""


def test_perf_analyzer_is_asked_for_the_same(tmp_path: Path) -> None:
    program = tmp_path / "perf_analyzer"
    program.write_text(_ANALYZER.format(python=sys.executable))

    def rate(url: str) -> float:
        inputs = systems.Inputs.random(16, 5, 3)
        return asyncio.run(perf_analyzer.rate(program, url, inputs, concurrency=4, window_s=1.5))

    with pytest.raises(systems.ServerError, match="does not run: Permission denied"):
        rate("127.0.0.1:8001")
    program.chmod(0o755)
    assert rate("127.0.0.1:8001") == 41.5
    with pytest.raises(systems.ServerError, match=r"measured nothing \(exit code 1\): failed to connect"):
        rate("nobody:1")


def test_a_body_holds_the_request() -> None:
    inputs = systems.Inputs.random(16, 5, 3)
    source, target, strengths = wire.decode(wire.encode(inputs.source, inputs.target, inputs.strengths))
    assert np.array_equal(source.numpy(), inputs.source)
    assert np.array_equal(target.numpy(), inputs.target)
    assert np.array_equal(strengths.numpy(), inputs.strengths)


@pytest.mark.parametrize("status", ["200 OK", "503 Service Unavailable"])
def test_http_requests_keep_their_connection_until_it_is_closed(status: str) -> None:
    bodies, connections = [], 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        for _ in range(2):  # then the connection is closed, as an idle one would be
            head = await reader.readuntil(b"\r\n\r\n")
            bodies.append((head.split()[1], await reader.readexactly(5)))
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 3\r\n\r\nyes".encode())
        writer.close()

    async def main() -> list[bytes | str]:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        request = HttpRequest("127.0.0.1", server.sockets[0].getsockname()[1], "/predict", b"hello")

        async def answered() -> bytes | str:
            try:
                return await request.send()
            except RequestFailed as error:
                return str(error)

        answers = [await answered() for _ in range(3)]
        await request.close()
        server.close()
        return answers

    answers = asyncio.run(main())
    assert answers == ([b"yes"] * 3 if status == "200 OK" else ["status 503"] * 3)
    assert bodies == [(b"/predict", b"hello")] * 3
    assert connections == 2


def test_processes_are_counted_with_what_they_start() -> None:
    before = process_usage.children()
    code = (
        "import subprocess, sys; data = bytearray(100 << 20); sum(range(10**6)); "
        "inner = subprocess.Popen(['sleep', '60']); print('up', flush=True); sys.stdin.read(); inner.kill()"
    )
    started = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert started.stdout is not None
        started.stdout.readline()
        assert process_usage.children() - before == {started.pid}
        assert process_usage.memory_mib([started.pid]) > 100
        assert process_usage.cpu_s([started.pid]) > 0
    finally:
        started.communicate()
    assert process_usage.cpu_s([started.pid]) == 0


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of small random networks."""
    torch.manual_seed(0)
    network = CompactConfig(
        feature_channels=16, widths=(8, 12, 16), encoder_blocks=(0, 0, 1), decoder_blocks=(0, 0, 1), branch_width=8
    )
    model = MorphModel(ModelConfig(groups={"hair": ("red",)}, picture_size=32, network=network))
    torch.nn.init.normal_([weights for weights in model.decoder.parameters() if weights.ndim == 4][-1], std=0.3)
    folder = tmp_path_factory.mktemp("bench_serving")
    save_model(folder / "run", model)
    export_run(folder / "run", folder / "repository", threads=1)
    return folder / "repository"


@pytest.mark.server
@pytest.mark.slow
def test_the_command_measures_the_real_server(
    homomorph: Callable[..., Any], repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = scenarios.ScenarioSettings(
        stream_requests=3,
        offline_s=0.05,
        outstanding=8,
        window_s=0.2,
        windows=2,
        tolerance=0.3,
        concurrencies=(1, 4),
        shares=(0.7,),
    )
    monkeypatch.setattr(scenarios, "QUICK", settings)
    words = ("--repository", repository, "--frames", 3, "--bound-ms", 10_000, "--no-peers", "--quick")
    words = (*words, "--gpus", "none", "--engine", "onnxruntime")
    outcome = homomorph("bench", "serving", "--out", tmp_path, *words)
    assert outcome.code == 0, outcome.err
    records = {record["name"]: record for record in json.loads((tmp_path / "results.json").read_text())}
    tritons = ("Triton", "Triton with onnxruntime")
    for name in ("in process", *tritons, "Triton through MorphClient", "Triton through MorphClient, shared memory"):
        p50, p90, p99 = (records[f"{name}, SingleStream p{percent}"] for percent in (50, 90, 99))
        assert 0 < p50["value"] <= p90["value"] <= p99["value"]
        assert p50["baseline"] == "in process, SingleStream p50"
    for record in records.values():
        assert record["baseline"] in records
    first, *_ = records.values()
    assert first["meta"]["frames"] == 3
    assert list(first["meta"]["environment"]["engines"]) == ["onnxruntime"]
    fastest = max(records[f"in process{batches}, Offline"]["value"] for batches in ("", " by 8"))
    for name in tritons:
        offline = records[f"{name}, Offline"]
        assert offline["ratio"] == pytest.approx(offline["value"] / fastest)
        assert offline["meta"]["server_memory_mib"] > 100
        assert records[f"{name} by 8, Offline"]["value"] > 0
        assert records[f"{name}, Server, p99 <= 10000 ms"]["value"] > 0
        in_time = records[f"{name}, within 1 s at 150% of its saturating rate"]
        assert 0 < in_time["ratio"] == pytest.approx(in_time["value"] / offline["value"])

    # The parts make up the whole, as the client saw it.
    case = scenarios.ONE_AT_A_TIME
    whole = records[f"Triton, {case}"]
    parts = [r for r in records.values() if r["baseline"] == whole["name"] and r is not whole]
    parts = [record for record in parts if not record["name"].startswith("client library")]
    assert sum(record["value"] for record in parts) == pytest.approx(whole["value"], rel=0.01)
    assert records[f"morpher compute_infer, {case}"]["value"] > 0

    # What shared memory and the cache save; on these networks it may be anything.
    for method in ("morph", "blend of pixels"):
        plain = records[f"Triton through MorphClient, {method} of 512 pixels"]
        shared = records[f"Triton through MorphClient, shared memory, {method} of 512 pixels"]
        assert shared["ratio"] == pytest.approx(plain["value"] / shared["value"])
    for requests in ("one at a time", "32 at once"):
        known, new = (records[f"{pictures}, {requests}"] for pictures in ("known target", "new pictures"))
        assert known["ratio"] == pytest.approx(new["value"] / known["value"])
        assert 0 < known["meta"]["encoding_share_in_process"] < 1

    known, new = (records[f"{pictures}, one frame of a slider"] for pictures in ("known pictures", "new pictures"))
    assert known["ratio"] == pytest.approx(new["value"] / known["value"])
    assert known["meta"]["frames"] == 1

    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 3
    assert "src=" not in page, "nothing beside it"
    assert '"Triton with onnxruntime" computes E and D in that runtime.' in page


def test_a_peer_runs_in_a_keeper_of_its_own(tmp_path: Path) -> None:
    with Peer("wire", tmp_path) as peer:  # this module ends at once, and writes nothing
        peer._keeper._process.wait(timeout=60)
        with pytest.raises(systems.ServerError, match="the peer wire ended by itself: it wrote nothing"):
            peer.check()


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.parametrize("name", systems.PEERS)
def test_peers_answer_the_same_frames_and_outlive_a_stop(
    repository: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systems, "PEERS", {name: systems.PEERS[name]})

    async def compare() -> None:
        async with systems.start_systems(systems.SystemSettings(repository, 2, 64), silent) as running:
            peer = running.systems[name]  # `start_systems` has compared its frames, and stopped its processes
            await asyncio.sleep(4)  # a server's keeper ends a stopped process after two seconds
            async with peer.resumed():
                assert await peer.request.send()

    asyncio.run(compare())


@pytest.mark.server
def test_other_frames_are_found(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compute = systems.InProcess.send

    async def other(self: systems.InProcess) -> bytes:
        return bytes(len(await compute(self)))

    monkeypatch.setattr(systems.InProcess, "send", other)

    async def start() -> None:
        async with systems.start_systems(systems.SystemSettings(repository, 3, peers=False), silent):
            raise AssertionError("the frames differ")

    with pytest.raises(systems.ServerError, match=r"Triton answers other frames: they are \d+ grey levels off"):
        asyncio.run(start())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--frames", "0"], "--frames"),
        (["--bound-ms", "0"], "--bound-ms"),
        (["--repository", "nowhere"], "nowhere"),
        (["--engine", "torchscript"], "'torchscript' is not one of 'onnxruntime', 'openvino'"),
        (["--engine", "onnxruntime", "--gpus", "none", "--repository", "/", "--no-peers"], "does not exist"),
    ],
)
def test_mistakes_are_one_line(homomorph: Callable[..., Any], tmp_path: Path, words: list[str], said: str) -> None:
    outcome = homomorph("bench", "serving", "--out", tmp_path / "out", *words)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert said in outcome.err
    assert not (tmp_path / "out").exists()


@pytest.mark.server
def test_a_picture_size_that_the_model_cannot_take(
    homomorph: Callable[..., Any], repository: Path, tmp_path: Path
) -> None:
    words = ("--repository", repository, "--picture-size", 30, "--no-peers", "--quick")
    outcome = homomorph("bench", "serving", "--out", tmp_path / "out", *words)
    assert outcome.code == 2
    assert "picture_size must be a positive multiple of 8, not 30" in outcome.err
    assert not (tmp_path / "out").exists()
