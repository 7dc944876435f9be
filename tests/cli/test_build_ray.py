"""``wsrl build --engine ray`` on a cluster of two nodes of this machine."""

import sys

import pytest
from killer import killing_a_worker, shard_bytes

from wsrl.errors import UserError
from wsrl.fitting.ray_engine import RayOptions

SIGNALS = ("--source", "{limit: 100}", "--shards", "2")
SMALL = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with one core each."""
    pytest.importorskip("ray", reason="the extra [ray] is not installed")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args=SMALL)
    made.add_node(num_cpus=1, object_store_memory=SMALL["object_store_memory"])
    yield made
    made.shutdown()


def raylets(cluster):
    """Process ids of the parents of the workers."""
    return [info.process.pid for node in cluster.list_all_nodes() for info in node.all_processes["raylet"]]


def test_a_cluster_gives_the_same_bytes_as_this_process(build, cluster, tmp_path, capsys):
    assert build(tmp_path / "ray", *SIGNALS, "--engine", "ray", "--ray-address", cluster.address) == 0
    told = capsys.readouterr()
    assert "200 fields, complete" in told.out and "2 shards: 200/200" in told.err
    assert build(tmp_path / "local", *SIGNALS, "--threads", "1") == 0
    assert shard_bytes(tmp_path / "ray") == shard_bytes(tmp_path / "local")


@pytest.mark.slow
def test_a_worker_killed_in_its_shard_is_replaced(build, cluster, tmp_path, capsys):
    slower = (*SIGNALS, "--fit.steps", "150")
    with killing_a_worker(tmp_path / "ray", raylets(cluster), "ray::_build") as killed:
        assert build(tmp_path / "ray", *slower, "--engine", "ray", "--ray-address", cluster.address) == 0
    assert len(killed) == 1
    assert "died; another one goes on with it" in capsys.readouterr().err
    assert build(tmp_path / "local", *slower, "--threads", "1") == 0
    assert shard_bytes(tmp_path / "ray") == shard_bytes(tmp_path / "local")


@pytest.mark.slow
def test_what_a_task_cannot_do_is_a_message(build, cluster, tmp_path, capsys):
    from wsrl.store.writer import ShardWriter

    assert build(tmp_path / "ray", *SIGNALS, "--shard", "0/2") == 0
    with ShardWriter(tmp_path / "ray", 1):
        assert build(tmp_path / "ray", *SIGNALS, "--engine", "ray", "--ray-address", cluster.address) == 2
    assert "Shard 1 of" in capsys.readouterr().err
    assert build(tmp_path / "ray", *SIGNALS, "--engine", "ray", "--ray-address", cluster.address) == 0


def test_without_ray_the_message_names_the_extra(build, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)  # importing it fails as where it is not installed
    assert build(tmp_path / "store", "--engine", "ray") == 2
    assert "pip install 'wsrl[ray]'" in capsys.readouterr().err


def test_a_cluster_that_is_not_there_is_a_message(build, tmp_path, capsys):
    pytest.importorskip("ray", reason="the extra [ray] is not installed")
    for address, told in (("127.0.0.1:1", "cannot be reached"), ("nonsense", "HOST:PORT")):
        assert build(tmp_path / "store", "--engine", "ray", "--ray-address", address) == 2
        assert told in capsys.readouterr().err


def test_requests_are_checked():
    with pytest.raises(UserError, match="not both 0"):
        RayOptions(cpus=0)
    assert RayOptions(cpus=0, gpus=0.5).gpus == 0.5
