"""Faults during a run, caused directly or by patching the call that fails.

The function `cause` of a fault receives an empty folder and pytest's monkeypatch, runs a command
that writes to `out`, and returns its exit code and the last line of its output.
"""

import errno
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from click.testing import CliRunner
from scans import SHAPE, save, write_scan

from aslkit.cli.fit_ls import main as asl_fit_ls
from aslkit.cli.predict import main as asl_predict
from aslkit.cli.sim import main as asl_sim
from aslkit.cli.train import main as asl_train
from aslkit.cli.validate import main as asl_validate
from aslkit.nets.model_store import PACKAGE_FOLDER

CHANGES = ("network.widths=[8,16]", "data.patch_size=16", "data.protocols_per_step=1", "steps=2")
TINY = [part for change in CHANGES for part in ("--set", change)]
TIMES = re.compile(r"; \d+ s, [\d.]+ s each$")
MOST_NAMES = 4  # file names in a row
WRITE = "aslkit.outputs.maps.write_image"


class Done(NamedTuple):
    """Exit code and last line of a command."""

    exit_code: int
    message: str


class Fault(NamedTuple):
    """Cause of a fault, in words and in code."""

    how: str
    cause: Callable[[Path, pytest.MonkeyPatch], Done]


def run_command(command, *arguments):
    result = CliRunner().invoke(command, [str(a) for a in arguments])
    return Done(result.exit_code, (result.output.strip().splitlines() or [""])[-1])


def fit(folder, *more):
    return run_command(
        asl_fit_ls, "-i", write_scan(folder), "-o", folder / "out" / "cbf.nii.gz", *more
    )


def fit_study(folder, *more):
    write_scan(folder / "study")
    return run_command(
        asl_fit_ls, "--bids", folder / "study", "--derivatives", folder / "out", *more
    )


def predict(folder, model, *more):
    out = folder / "out" / "cbf.nii.gz"
    return run_command(asl_predict, "-i", write_scan(folder), "-o", out, "--model", model, *more)


def in_a_process(folder, before="", shell="exec"):
    """Run the Python code `before` and then asl_fit_ls in another process, started by a shell."""
    image, out = write_scan(folder), folder / "out" / "cbf.nii.gz"
    code = f"{before}\nfrom aslkit.cli.fit_ls import main\nmain()"
    line = f'{shell} "$0" -c "$1" -i "$2" -o "$3"'
    done = subprocess.run(
        ["bash", "-c", line, sys.executable, code, str(image), str(out)],
        capture_output=True,
        text=True,
    )
    code = done.returncode
    return Done(128 - code if code < 0 else code, (done.stderr.strip().splitlines() or [""])[-1])


def fails(target, number, run=fit):
    """Return a fault in which `target` raises an error of the operating system."""

    def cause(folder, monkeypatch):
        def fail(*_, **__):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(target, fail)
        return run(folder)

    return Fault(f"`{target.rpartition('.')[2]}` raises {errno.errorcode[number]}", cause)


def raises_signal(number):
    def cause(folder, _):
        before = (
            "import signal, aslkit.outputs.maps\n"
            f"aslkit.outputs.maps.write_image = lambda *_, **__: signal.raise_signal({number})\n"
        )
        return in_a_process(folder, before)

    name = signal.Signals(number).name
    return Fault(f"{name} while the first map is written", cause)


def folder_instead_of_map(folder, _):
    (folder / "out" / "cbf.nii.gz").mkdir(parents=True)
    return fit(folder)


def out_is_a_file(folder, _):
    (folder / "out").touch()
    return fit(folder)


def maps_exist(folder, _):
    fit_study(folder)
    return run_command(asl_fit_ls, "--bids", folder / "study", "--derivatives", folder / "out")


def scan_disappears(folder, monkeypatch):
    from aslkit.cli import data_set

    find = data_set._tasks

    def find_and_remove(*arguments):
        tasks = find(*arguments)
        for path in (folder / "study").rglob("*_asl.nii.gz"):
            path.unlink()
        return tasks

    monkeypatch.setattr(data_set, "_tasks", find_and_remove)
    return fit_study(folder)


def out_of_memory(folder, monkeypatch):
    def fail(*_, **__):
        raise MemoryError("Unable to allocate 80. GiB")

    monkeypatch.setattr("aslkit.cli.fit_ls.fit_least_squares", fail, raising=False)
    monkeypatch.setattr("aslkit.fit.least_squares.fit_least_squares", fail)
    return fit(folder)


def image_beyond_memory(folder, monkeypatch):
    monkeypatch.setattr("aslkit.bids.nifti.memory_bytes", lambda: 10_000_000)
    image = save(folder / "asl.nii", np.zeros((100, 100, 100, 12), np.uint8))
    return run_command(asl_fit_ls, "-i", image, "-o", folder / "out" / "cbf.nii.gz", "--plds", 1)


def gzip_bomb(folder, _):
    image = write_scan(folder)
    save(image, np.zeros((*SHAPE, 13), np.int16))
    import gzip

    data = bytearray(gzip.decompress(image.read_bytes()))
    data[42:48] = np.array([4000, 4000, 4000], "<i2").tobytes()
    image.write_bytes(gzip.compress(bytes(data)))
    return run_command(asl_fit_ls, "-i", image, "-o", folder / "out" / "cbf.nii.gz")


def huge_sidecar(folder, _):
    image = write_scan(folder)
    image.with_name("sub-01_asl.json").write_text("{" + " " * 11_000_000 + "}")
    return run_command(asl_fit_ls, "-i", image, "-o", folder / "out" / "cbf.nii.gz")


def link_in_circles(folder, _):
    (folder / "study").mkdir()
    (folder / "study" / "sub-02").symlink_to(folder / "study")
    return fit_study(folder)


def m0_outside(folder, _):
    image = write_scan(folder / "study", {"M0Type": "Separate", "M0Estimate": None})
    save(folder / "elsewhere" / "sub-01_m0scan.nii.gz", np.ones(SHAPE, np.float32))
    (folder / "elsewhere" / "sub-01_m0scan.json").write_text(
        json.dumps({"IntendedFor": f"bids::../study/{image.relative_to(folder / 'study')}"})
    )
    return run_command(asl_fit_ls, "--bids", folder / "study", "--derivatives", folder / "out")


def config(text):
    def cause(folder, _):
        (folder / "own.yaml").write_text(text)
        return run_command(asl_train, "--config", folder / "own.yaml", "--out", folder / "out")

    return cause


def copy_of_a_model(folder):
    shutil.copytree(PACKAGE_FOLDER / "small", folder / "model")
    return folder / "model"


def weights(data):
    def cause(folder, _):
        (copy_of_a_model(folder) / "weights.safetensors").write_bytes(data)
        return predict(folder, folder / "model")

    return cause


class Exploit:
    """An object whose unpickling ends the process."""

    def __reduce__(self):
        return (os._exit, (99,))


def edited_card(folder, _):
    path = copy_of_a_model(folder) / "model.json"
    card = json.loads(path.read_text())
    card["network"]["widths"] = [16, 32, 64, 256]
    path.write_text(json.dumps(card))
    return predict(folder, folder / "model")


def no_gpu(folder, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    return predict(folder, "small", "--device", "cuda")


def train(folder, *more):
    return run_command(asl_train, "--config", "small", "--out", folder / "out", *TINY, *more)


def trained_twice(folder, _):
    train(folder)
    return train(folder)


def damaged_checkpoint(folder, _):
    train(folder)
    (folder / "out" / "checkpoint.safetensors").write_bytes(b"damaged")
    return train(folder, "--resume")


def diverges(folder, monkeypatch):
    monkeypatch.setattr(
        "aslkit.train.recipe.correction_loss", lambda *a: a[0].sum() * float("nan")
    )
    return train(folder)


def simulated_twice(folder, _):
    (folder / "out").mkdir()
    (folder / "out" / "mine").touch()
    return simulate(folder)


def simulate(folder):
    grid = ("--matrix", "8,8,2", "--voxel-size", "9", "--protocol", "pcasl5")
    return run_command(asl_sim, "--out", folder / "out", *grid)


def validate_into_a_file(folder, _):
    (folder / "out").touch()
    return run_command(asl_validate, "--bids", folder, "--out", folder / "out")


def worker_dies(folder, _):
    """Run the batch engine with stages that kill their own process."""
    from test_batch import DyingStages

    from aslkit.batch.processes import run_in_processes

    (folder / "out").mkdir()
    return Done(1, dict(run_in_processes(["deadly"], DyingStages(folder), 1))["deadly"])


def cluster_worker_dies(folder, _):
    from test_batch import DyingStages

    from aslkit.batch.dask_cluster import run_on_cluster

    found = dict(run_on_cluster(["deadly"], DyingStages(folder), "local", 1, lambda _: None))
    return Done(1, found["deadly"])


def no_scheduler(folder, monkeypatch):
    monkeypatch.setattr("aslkit.batch.dask_cluster.CONNECT_TIMEOUT_S", 0.5)
    return fit_study(folder, "--dask", "tcp://127.0.0.1:9")


def no_dask(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    return fit_study(folder, "--dask", "local")


BOMB = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [*{old}, *{old}, *{old}, *{old}, *{old}, *{old}, *{old}, *{old}]\n"
    for old, new in zip("abcdefghij", "bcdefghijk", strict=True)
)
FAULTS = {
    "the disk is full": fails(WRITE, errno.ENOSPC),
    "the disk quota is exceeded": fails(WRITE, errno.EDQUOT),
    "the file system is read-only": fails(WRITE, errno.EROFS),
    "the disk fails": fails(WRITE, errno.EIO),
    "the disk is full when the file is synchronised": fails("os.fsync", errno.ENOSPC),
    "the file size is limited": Fault(
        "`ulimit -f 2`", lambda f, _: in_a_process(f, shell="ulimit -f 2; exec")
    ),
    "the output folder is not writable": fails("tempfile.mkdtemp", errno.EACCES),
    "the output folder is a file": Fault("a file of the same name", out_is_a_file),
    "a folder has the name of a map": Fault("`mkdir out/cbf.nii.gz`", folder_instead_of_map),
    "maps exist already": Fault("the same command again", maps_exist),
    "a scan is deleted during the run": Fault("deleted before reading", scan_disappears),
    "SIGINT": raises_signal(2),
    "SIGTERM": raises_signal(15),
    "SIGKILL": raises_signal(9),
    "the reader of standard output has ended": Fault(
        "standard output is a closed pipe",
        lambda f, _: in_a_process(f, "import os\nr, w = os.pipe(); os.close(r); os.dup2(w, 1)"),
    ),
    "memory is exhausted": Fault("least squares raises MemoryError", out_of_memory),
    "an image is larger than the memory": Fault("a machine of 10 MB", image_beyond_memory),
    "a gzip bomb": Fault("a header of 1.6 TB of zeros in 2 kB", gzip_bomb),
    "a sidecar of 11 MB": Fault("spaces", huge_sidecar),
    "a circular link": Fault("`ln -s study study/sub-02`", link_in_circles),
    "an M0 image outside of the data set": Fault("IntendedFor with `../`", m0_outside),
    "a configuration with a Python tag": Fault(
        "`!!python/object/apply:os.system`", config("!!python/object/apply:os.system ['exit 1']")
    ),
    "a YAML bomb": Fault("aliases of aliases, 2 x 8^10 elements", config(BOMB)),
    "weights that are a pickle": Fault(
        "a pickle that would run code", weights(pickle.dumps(Exploit()))
    ),
    "weights that claim to be huge": Fault(
        "a header of 2^60 bytes", weights((2**60).to_bytes(8, "little") + b"{}")
    ),
    "a model card of another network": Fault("an edited width", edited_card),
    "no such model": Fault("`--model nothing`", lambda f, _: predict(f, "nothing")),
    "no GPU": Fault("`--device cuda` without one", no_gpu),
    "a folder with a training run": Fault("the same command again", trained_twice),
    "a damaged checkpoint": Fault("other content, then `--resume`", damaged_checkpoint),
    "training diverges": Fault("a loss of NaN", diverges),
    "the disk is full during training": fails(
        "aslkit.nets.model_store.write_together", errno.ENOSPC, train
    ),
    "asl_sim into a folder with files": Fault("another file in it", simulated_twice),
    "the disk is full during simulation": fails(
        "nibabel.Nifti1Image.to_filename", errno.ENOSPC, simulate
    ),
    "asl_validate into a file": Fault("a file of the same name", validate_into_a_file),
    "a process of --n-jobs is killed": Fault(
        "SIGKILL to every process during the scan", worker_dies
    ),
    "a dask worker is killed": Fault(
        "SIGKILL to every process during the scan", cluster_worker_dies
    ),
    "the dask scheduler does not answer": Fault("a port without a scheduler", no_scheduler),
    "dask is not installed": Fault("`import distributed` fails", no_dask),
}


HEADER = "| fault | cause | exit code | message | remaining files |\n" + (
    "|---|---|---|---|---|\n"
)


def left_in(folder):
    """Describe the files in the output folder."""
    out = folder / "out"
    names = sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())
    names[MOST_NAMES:] = [f"and {n} more"] if (n := len(names) - MOST_NAMES) > 0 else []
    return ", ".join(names) or ("the file" if out.is_file() else "nothing")


def row(folder, fault, monkeypatch):
    """Return the row of the fault in docs/faults.md."""
    how, cause = FAULTS[fault]
    exit_code, message = cause(folder, monkeypatch)
    shown = TIMES.sub("", message.replace(f"{folder}/", "").replace("|", "\\|"))
    return f"| {fault} | {how} | {exit_code} | {shown} | {left_in(folder)} |"
