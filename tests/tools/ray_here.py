"""Ray on this machine, for tests of what runs on it; they are skipped where Ray is not installed."""

import os

import pytest

os.environ["RAY_AUTH_MODE"] = "disabled"  # before Ray is imported; else it writes a token into the home folder
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
STORE = 2**27


@pytest.fixture(scope="module")
def cluster():
    """Ray on a machine of two CPUs, joined by this process."""
    engine = pytest.importorskip("ray", exc_type=ImportError)
    from ray.cluster_utils import Cluster

    options = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": STORE}
    cluster = Cluster(initialize_head=True, head_node_args=options)
    engine.init(address=cluster.address, log_to_driver=False, logging_level="error")
    yield cluster
    engine.shutdown()
    cluster.shutdown()
