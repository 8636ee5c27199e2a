"""Cores that a process may use, with control groups as systemd, Docker and Kubernetes set them up, and with none."""

import os

import pytest
from softfeed.pipelines import cores
from softfeed.pipelines.process import default_threads
from softfeed.pipelines.shards.workers import default_workers

VERSION_2 = "31 23 0:28 {root} {point} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
VERSION_1 = (
    "24 23 0:21 / {point}/../memory rw - cgroup cgroup rw,memory\n"
    "25 23 0:22 {root} {point} rw,nosuid shared:9 master:1 - cgroup cgroup rw,cpu,cpuacct\n"
    "26 23 0:23 / {point}/../cpuset rw - cgroup cgroup rw,cpuset\n"
)


@pytest.fixture
def process(tmp_path):
    """Writes what /proc tells of a process, and the files of its control groups, by name; returns its folder."""

    def write(group, mounts, files, root="/"):
        point = tmp_path / "groups"
        (tmp_path / "cgroup").write_text(group)
        mounts = "22 1 8:1 / / rw - ext4 /dev/a rw\n" + mounts.format(root=root, point=point)
        (tmp_path / "mountinfo").write_text(mounts)
        for name, text in files.items():
            (point / name).parent.mkdir(parents=True, exist_ok=True)
            (point / name).write_text(text + "\n")
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"a/cpu.max": "800000 100000", "a/b/cpu.max": "max 100000"}, 8),  # of the group around it
        ({"a/cpu.max": "800000 100000", "a/b/cpu.max": "25000 50000"}, 0.5),
        ({"a/cpu.max": "100000 100000", "a/b/cpu.max": "400000 100000"}, 1),
        ({"other/cpu.max": "1000 100000", "a/b/c/cpu.max": "1000 100000"}, None),
    ],
)
def test_the_tightest_limit_counts(process, files, expected):
    assert cores.quota(process("0::/a/b\n", VERSION_2, files)) == expected


def test_the_limit_of_a_container(process):
    """It sees itself as the root."""
    assert cores.quota(process("0::/\n", VERSION_2, {"cpu.max": "200000 100000"})) == 2


@pytest.mark.parametrize(("allowed", "expected"), [("-1", None), ("250000", 2.5)])
def test_version_1(process, allowed, expected):
    files = {"cpu.cfs_quota_us": allowed, "cpu.cfs_period_us": "100000"}
    groups = "5:memory:/elsewhere\n4:cpu,cpuacct:/docker/1f\n3:cpuset:/\n1:name=systemd:/x\n0::/x\n"
    assert cores.quota(process(groups, VERSION_1, files, root="/docker/1f")) == expected
    inner = {f"docker/1f/{name}": text for name, text in files.items()}
    files = {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}
    assert cores.quota(process(groups, VERSION_1, files | inner)) == expected


def test_a_group_outside_of_what_is_mounted(process):
    files = {"cpu.max": "300000 100000"}
    assert cores.quota(process("0::/../other\n", VERSION_2, files, root="/here")) == 3


def test_no_control_groups(process, tmp_path):
    assert cores.quota(tmp_path / "nothing") is None
    assert cores.quota(process("", "", {})) is None


@pytest.mark.parametrize(("quota", "expected"), [(None, 8), (64.0, 8), (8.0, 8), (2.0, 2), (1.5, 2), (0.1, 1)], ids=str)
def test_a_quota_is_rounded_up_to_cores(monkeypatch, quota, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(cores, "quota", lambda: quota)
    assert cores.available() == expected


def test_cores_are_shared_by_the_ranks_of_the_machine(monkeypatch):
    monkeypatch.setattr(cores, "available", lambda: 6)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert (cores.share(), default_threads(raw=False), default_threads(raw=True)) == (6, 6, 5)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert (cores.share(), default_threads(raw=False), default_threads(raw=True)) == (1, 1, 1)
    assert default_workers(10**6) == 6  # workers are of the whole machine


def test_this_machine():
    assert 1 <= cores.available() <= len(os.sched_getaffinity(0))
    assert cores.share() >= 1
