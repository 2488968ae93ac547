"""scripts/slurm_train.sh against a Slurm of two small programs: what is started, and what is queued again."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from commands import REPOSITORY

SRUN = """\
#!/usr/bin/env bash
# Starts the command once for every node, and ends with the highest code.
shift  # --kill-on-bad-exit=0
codes=0
for node in $(seq 0 $((SLURM_NNODES - 1))); do SLURM_NODEID=$node "$@" & pids+=($!); done
for pid in "${pids[@]}"; do wait "$pid"; code=$?; [ $code -le $codes ] || codes=$code; done
exit $codes
"""
SCONTROL = """\
#!/usr/bin/env bash
if [ "$1" = show ]; then printf 'node-a\\nnode-b\\n'; else echo "$@" >> requeued; fi
"""
TRAIN = """\
#!/usr/bin/env bash
# Instead of tools/train_ddp.sh: notes how it was called, saves, and ends as it is told.
echo "$NODE_RANK/$NNODES $MASTER_ADDR:$MASTER_PORT nproc=${NPROC:-} $*" >> "calls-$NODE_RANK"
sleep "$(cat seconds)"
[ ! -e saves ] || { mkdir -p exp/slurm-7/checkpoints; touch exp/slurm-7/checkpoints/last.pt; }
exit "$(cat code)"
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """The folder of a job; ``cluster(code)`` runs it to its end and gives its exit code and what was requeued."""
    for place, text in {"bin/srun": SRUN, "bin/scontrol": SCONTROL, "tools/train_ddp.sh": TRAIN}.items():
        file = tmp_path / place
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)
    (tmp_path / "saves").touch()
    (tmp_path / "seconds").write_text("0")
    monkeypatch.delenv("NPROC", raising=False)

    def start(code: int, *arguments: str, **changes: str) -> subprocess.Popen:
        (tmp_path / "code").write_text(str(code))
        slurm = {"SUBMIT_DIR": str(tmp_path), "JOB_ID": "7", "NNODES": "2", "JOB_NODELIST": "node-[a-b]"}
        slurm |= {"GPUS_ON_NODE": "4"}
        names = {f"SLURM_{name}": value for name, value in slurm.items()} | changes
        return subprocess.Popen(
            [
                "bash",
                str(REPOSITORY / "scripts/slurm_train.sh"),
                *(arguments or ("configs/demo.yaml", "--opts", "seed=1")),
            ],
            env={**os.environ, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", **names},
            stdout=subprocess.PIPE,
            text=True,
        )

    return start


def calls(folder: Path, rank: int = 0) -> list[str]:
    return (folder / f"calls-{rank}").read_text().splitlines()


def requeued(folder: Path) -> int:
    return len((folder / "requeued").read_text().splitlines()) if (folder / "requeued").exists() else 0


def test_all_nodes_start_as_one_launch(cluster, tmp_path):
    assert cluster(0).wait(60) == 0
    common = "node-a:20007 nproc=4 configs/demo.yaml --opts seed=1 --run-dir exp/slurm-7"
    assert calls(tmp_path, 0) == [f"0/2 {common}"] and calls(tmp_path, 1) == [f"1/2 {common}"]
    assert requeued(tmp_path) == 0


@pytest.mark.parametrize("code", [75, 3])
def test_what_was_stopped_or_lost_is_queued_again_and_resumes(cluster, tmp_path, code):
    assert cluster(code).wait(60) == code and requeued(tmp_path) == 1
    assert cluster(0).wait(60) == 0 and requeued(tmp_path) == 1
    assert calls(tmp_path)[1].endswith("nproc=4 --resume exp/slurm-7")


@pytest.mark.parametrize("code", [1, 2])
def test_a_mistake_ends_the_job(cluster, tmp_path, code):
    assert cluster(code).wait(60) == code and requeued(tmp_path) == 0


def test_what_saved_nothing_or_was_tried_too_often_ends(cluster, tmp_path):
    assert cluster(75, SLURM_RESTART_COUNT="2", MAX_REQUEUES="2").wait(60) == 75 and requeued(tmp_path) == 0
    (tmp_path / "exp/slurm-7/checkpoints/last.pt").unlink()
    (tmp_path / "saves").unlink()
    assert cluster(3).wait(60) == 3 and requeued(tmp_path) == 0
    assert (tmp_path / "exp" / "slurm-7.unsaved-0").is_dir(), "nothing is removed"
    assert "--run-dir exp/slurm-7" in calls(tmp_path)[-1]


def test_a_signal_is_waited_for(cluster, tmp_path):
    """Slurm sends it to the steps as well; the script must not end before they have saved."""
    (tmp_path / "seconds").write_text("2")
    job = cluster(75)
    while not (tmp_path / "calls-0").exists():
        time.sleep(0.05)
    job.terminate()
    assert job.wait(60) == 75 and requeued(tmp_path) == 1
