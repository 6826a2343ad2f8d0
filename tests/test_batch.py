"""Data sets: scans that are processed, skipped, refused and reported, and interrupted runs."""

import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from scans import SIDECAR, save, volumes

from aslkit.batch.outcomes import Outcome, OutcomeRecorder
from aslkit.batch.processes import SingleStep, run_in_processes
from aslkit.bids.layout import find_acquisitions, scan_name
from aslkit.cli.fit_ls import main as asl_fit_ls
from aslkit.cli.predict import main as asl_predict
from aslkit.core.errors import InputError, SubjectsFailedError
from aslkit.outputs.atomic_write import PREFIX, write_together
from aslkit.outputs.dataset import record_outcome
from aslkit.outputs.fingerprints import fingerprint

BIN = Path(__file__).parents[1] / "bin"


def run(study, derivatives, *options, command=asl_fit_ls, code=0):
    """Run the command on a data set, check its exit code, and return its output."""
    arguments = ["--bids", study, "--derivatives", derivatives, *options]
    done = CliRunner().invoke(command, [str(a) for a in arguments])
    assert done.exit_code == code, done.output
    return done.output


def contents(folder):
    """Return the checksum of every file except the logs."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "logs" not in path.parts
    }


def images(folder):
    return {name: digest for name, digest in contents(folder).items() if name.endswith(".gz")}


def failures(derivatives):
    with (derivatives / "failed.tsv").open() as file:
        return {row["scan"]: row for row in csv.DictReader(file, delimiter="\t")}


def damage(study):
    """Truncate the image of a subject."""
    image = study / "sub-02" / "perf" / "sub-02_asl.nii.gz"
    image.write_bytes(image.read_bytes()[:500])


@pytest.mark.slow
def test_every_scan_gets_maps_with_bids_names_and_a_log(study, derivatives):
    output = run(study, derivatives)
    assert "4 scans: 4 done, 0 skipped, 0 failed" in output
    perf = derivatives / "sub-03" / "ses-b" / "perf"
    names = {path.name for path in perf.iterdir()}
    assert {f"sub-03_ses-b_desc-ls_{k}.nii.gz" for k in ("cbf", "att", "flags")} <= names
    assert {f"sub-03_ses-b_desc-lsStd_{k}.json" for k in ("cbf", "att")} <= names
    log = (derivatives / "logs" / "sub-03_ses-b_desc-ls.log").read_text()
    assert "labeling    PCASL" in log and "CBF [ml/100 g/min]" in log
    sidecar = json.loads((perf / "sub-03_ses-b_desc-ls_cbf.json").read_text())
    assert "bids:raw:sub-03/ses-b/perf/sub-03_ses-b_asl.nii.gz" in sidecar["Sources"]
    assert not (derivatives / "failed.tsv").exists()


def test_the_maps_equal_those_of_a_single_scan(study, derivatives, tmp_path):
    run(study, derivatives, "--participant-label", "01", "--smooth", 3)
    image = study / "sub-01" / "perf" / "sub-01_asl.nii.gz"
    alone = CliRunner().invoke(
        asl_fit_ls, ["-i", str(image), "-o", str(tmp_path / "cbf.nii.gz"), "--smooth", "3"]
    )
    assert alone.exit_code == 0, alone.output
    of_set = derivatives / "sub-01" / "perf" / "sub-01_desc-ls_cbf.nii.gz"
    assert of_set.read_bytes() == (tmp_path / "cbf.nii.gz").read_bytes()


def test_maps_of_a_network_are_named_after_the_model(study, derivatives):
    output = run(study, derivatives, "--participant-label", "sub-01", command=asl_predict)
    assert "1 scan: 1 done" in output
    names = {path.name for path in (derivatives / "sub-01" / "perf").iterdir()}
    assert {"sub-01_desc-aslnet_cbf.nii.gz", "sub-01_desc-aslnetStd_cbf.nii.gz"} <= names


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("bids-validator-deno") is None, reason="bids-validator-deno is not installed"
)
def test_the_official_validator_finds_no_error(study, derivatives):
    run(study, derivatives, "--moco", "--diagnostics", "--fitted")
    command = ["bids-validator-deno", "--json", str(derivatives)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True).stdout)
    issues = found["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []


def test_any_number_of_jobs_gives_the_same_bytes(study, tmp_path):
    for name, n_jobs in (("one", 1), ("two", 2)):
        run(study, tmp_path / name, "--n-jobs", n_jobs, "--participant-label", "03", "02")
    assert images(tmp_path / "one") == images(tmp_path / "two") != {}
    before = contents(tmp_path / "two")
    run(study, tmp_path / "two", "--n-jobs", 2, "--participant-label", "03", "02", "--overwrite")
    assert contents(tmp_path / "two") == before


def test_existing_maps_need_skip_existing_or_overwrite(study, derivatives):
    run(study, derivatives, "--participant-label", "01")
    output = run(study, derivatives, code=3)
    assert "found maps of 1 of 4 scans" in output and "--skip-existing or --overwrite" in output
    assert "3 done, 1 skipped" in run(study, derivatives, "--skip-existing")
    assert "4 done, 0 skipped" in run(study, derivatives, "--overwrite")


def test_only_complete_maps_with_the_same_options_are_skipped(study, derivatives):
    one = ("--participant-label", "01", "--skip-existing")
    run(study, derivatives, *one)
    assert "0 done, 1 skipped" in run(study, derivatives, *one, "--n-jobs", 2)
    (derivatives / "sub-01" / "perf" / "sub-01_desc-ls_att.nii.gz").unlink()
    assert "1 done, 0 skipped" in run(study, derivatives, *one)
    assert "1 done, 0 skipped" in run(study, derivatives, *one, "--t1b", 1.7)


def test_the_fingerprint_depends_on_the_files_of_the_scan_only(study):
    perf = study / "sub-01" / "perf"
    image = perf / "sub-01_asl.nii.gz"
    found = [fingerprint([image], {})]
    (study / "participants.tsv").write_text("participant_id\nsub-01\n")
    (study / "sub-02" / "perf" / "sub-02_asl.json").write_text("{}")
    image.touch()
    assert fingerprint([image], {}) == found[0]
    for change in (
        lambda: save(image, volumes() * 1.01),
        lambda: (perf / "sub-01_asl.json").write_text(json.dumps(SIDECAR, indent=1)),
        lambda: (perf / "sub-01_aslcontext.tsv").write_text("volume_type\n"),
        lambda: (study / "asl.json").write_text('{"Manufacturer": "Siemens"}'),
        lambda: save(perf / "sub-01_m0scan.nii.gz", volumes()[..., 0]),
        lambda: (perf / "sub-01_m0scan.json").write_text("{}"),
    ):
        change()
        found.append(fingerprint([image], {}))
    assert len({*found, fingerprint([image], {"version": "2"})}) == len(found) + 1


def test_a_failed_scan_is_listed_and_the_other_scans_are_done(study, derivatives):
    original = (study / "sub-02" / "perf" / "sub-02_asl.nii.gz").read_bytes()
    damage(study)
    output = run(study, derivatives, code=4)
    assert "4 scans: 3 done, 0 skipped, 1 failed" in output and "failed.tsv" in output
    row = failures(derivatives)["sub-02_desc-ls"]
    assert row["exit_code"] == "3" and "a file that cannot be read" in row["message"]
    assert "FAILED" in (derivatives / "logs" / "sub-02_desc-ls.log").read_text()
    (study / "sub-02" / "perf" / "sub-02_asl.nii.gz").write_bytes(original)
    assert "1 done, 3 skipped, 0 failed" in run(study, derivatives, "--skip-existing")
    assert not (derivatives / "failed.tsv").exists()


@pytest.mark.parametrize(
    ("n_done", "n_failed", "summary", "message"),
    [
        (0, 1, "1 scan: 0 done", r"the only scan failed: see .*failed\.tsv and .*logs\.$"),
        (0, 3, "3 scans: 0 done", r"all 3 scans failed: see .*logs\.$"),
        (1, 2, "3 scans: 1 done", r"2 of 3 scans failed: see .* The other one is done\.$"),
        (2, 1, "3 scans: 2 done", r"1 of 3 scans failed: see .* The other 2 are done\.$"),
    ],
)
def test_the_last_lines_fit_the_number_of_scans(tmp_path, n_done, n_failed, summary, message):
    (tmp_path / "logs").mkdir()
    printed = []
    recorder = OutcomeRecorder(tmp_path, n_done + n_failed, printed.append, "scan")
    for i in range(n_done):
        recorder.record(Outcome(f"sub-{i}", "done"))
    for i in range(n_done, n_done + n_failed):
        recorder.record(Outcome(f"sub-{i}", "failed", message="the reason", exit_code=3))
    with pytest.raises(SubjectsFailedError, match=message):
        recorder.finish()
    assert printed[-1].startswith(summary)


def test_every_scan_is_in_one_part(study, derivatives):
    for k in (1, 2, 3):
        run(study, derivatives, "--part", f"{k}/3")
    made = {path.name for path in derivatives.rglob("*_desc-ls_cbf.nii.gz")}
    assert len(made) == 4
    assert "0 scans: 0 done" in run(study, derivatives, "--part", "9/9")


def test_labels_choose_participants_and_sessions(study, derivatives):
    run(study, derivatives, "--participant-label", "03", "--session-label", "ses-b")
    (made,) = derivatives.rglob("*_desc-ls_cbf.json")
    assert made.name == "sub-03_ses-b_desc-ls_cbf.json"
    output = run(study, derivatives, "--participant-label", "01", "99", code=3)
    assert "sub-99: found no ASL image, expected one of its labels, like 01, 02, 03" in output


def test_a_dry_run_shows_every_scan_and_writes_nothing(study, derivatives):
    damage(study)
    output = run(study, derivatives, "--dry-run", code=4)
    assert output.count("labeling    PCASL") == 3 and "1 with errors" in output
    assert not derivatives.exists()


@pytest.mark.parametrize(
    "options, message",
    [
        (["--n-jobs", "2"], "--n-jobs needs --bids DIR"),
        (["--bids", "."], "give the folder to write: --derivatives DIR"),
        (["--bids", ".", "--derivatives", "d", "-o", "cbf.nii"], "-o is for a single scan"),
        (["--bids", ".", "--derivatives", "d", "--m0", "m0.nii"], "--m0 FILE is for a single"),
        (["--bids", ".", "--derivatives", "d", "--part", "3/2"], "K from 1 to N"),
        (
            ["--bids", ".", "--derivatives", "d", "--overwrite", "--skip-existing"],
            "give either --skip-existing or --overwrite",
        ),
    ],
)
def test_conflicting_options_are_refused(options, message):
    done = CliRunner().invoke(asl_fit_ls, options)
    assert done.exit_code == 2 and message in done.output


def test_other_derivatives_and_the_data_set_itself_are_refused_as_output(study, tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    fields = {"DatasetType": "derivative", "GeneratedBy": [{"Name": "ASLPrep"}]}
    (folder / "dataset_description.json").write_text(json.dumps(fields))
    assert "found derivatives of ASLPrep" in run(study, folder, code=3)
    assert "found another data set" in run(study, study, code=3)


def test_an_unknown_model_is_refused_before_the_first_scan(study, derivatives):
    assert "is not there" in run(
        study, derivatives, "--model", "nothing", command=asl_predict, code=5
    )
    assert not derivatives.exists()


def test_two_images_with_the_same_name_are_refused(study, derivatives):
    save(study / "sub-01" / "perf" / "sub-01_asl.nii", volumes())
    assert "found the name of sub-01_asl.nii" in run(study, derivatives, code=3)


def test_a_vsasl_run_is_joined_with_the_pcasl_run_of_the_same_name(tmp_path):
    for name in ("sub-01_acq-pcasl", "sub-01_acq-vsasl", "sub-01_run-2_acq-vsasl"):
        save(tmp_path / "sub-01" / "perf" / f"{name}_asl.nii.gz", np.zeros((2, 2, 2)))
    found = [scan_name(runs) for runs in find_acquisitions(tmp_path)]
    assert found == ["sub-01", "sub-01_run-2_acq-vsasl"]
    save(tmp_path / "sub-01" / "perf" / "sub-01_asl.nii.gz", np.zeros((2, 2, 2)))
    assert len(find_acquisitions(tmp_path)) == 4  # three runs: their pairing is ambiguous


class DyingStages:
    """Stages whose process dies in the task "deadly", and once in the task "once"."""

    def __init__(self, folder):
        self.folder = folder

    def read(self, task):
        return task

    def compute(self, state):
        is_first = state == "once" and not (self.folder / "died once").exists()
        if is_first:
            (self.folder / "died once").touch()
        if state == "deadly" or is_first:
            os.kill(os.getpid(), signal.SIGKILL)
        return state

    def write(self, state):
        return state, "done"

    def lost_result(self, task, reason):
        return task, reason


def test_only_the_task_that_kills_its_process_is_lost(tmp_path):
    tasks = ["a", "b", "deadly", "c", "once", "d", "e"]
    results = dict(run_in_processes(tasks, DyingStages(tmp_path), 2))
    assert "the process was killed; out of memory" in results.pop("deadly")
    lost = [task for task, result in results.items() if result != "done"]
    assert set(results) == set(tasks) - {"deadly"} and set(lost) <= {"once"}


def die_in_task_two(task):
    if task == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return f"{task} done"


def describe_lost(task, reason):
    return f"{task}: {reason}"


def test_only_the_call_that_kills_its_process_is_lost():
    *done, lost = sorted(
        run_in_processes(range(4), SingleStep(die_in_task_two, describe_lost), 2), key=len
    )
    assert sorted(done) == ["0 done", "1 done", "3 done"]
    assert lost.startswith("2: the process was killed; out of memory")


def start(*arguments):
    command = [sys.executable, "-m", "aslkit.cli.fit_ls", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for(is_there, seconds=30):
    end = time.monotonic() + seconds
    while not is_there():
        assert time.monotonic() < end
        time.sleep(0.01)


def writes_into(folder):
    """Whether a folder below this one contains a temporary folder."""
    below = (names for parent, names, _ in os.walk(folder) if parent != str(folder))
    return any(PREFIX in name for names in below for name in names)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_leaves_complete_results_and_can_be_resumed(study, derivatives, number):
    process = start("--bids", study, "--derivatives", derivatives)
    wait_for(lambda: writes_into(derivatives) or process.poll() is not None)
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert f"Stopped by {number.name}" in errors and "Traceback" not in errors
    assert not list(derivatives.rglob(f"{PREFIX}*"))
    assert "0 failed" in run(study, derivatives, "--skip-existing")


REPLACE = """
import sys
from pathlib import Path
from aslkit.outputs.atomic_write import write_together
folder, i = Path(sys.argv[1]), 0
while True:
    i += 1
    with write_together(folder, "last") as temporary:
        for name in ("a", "b", "last"):
            (temporary / name).write_text(f"{sys.argv[2]}{i}." * 1000)
"""


def is_complete(folder):
    """Whether all files have the same, complete content, or the last file does not exist."""
    if not (folder / "last").exists():
        return True
    texts = {(folder / name).read_text() for name in ("a", "b", "last")}
    return len(texts) == 1 and texts.pop().count(".") == 1000


@pytest.mark.slow
def test_files_of_two_killed_writers_are_never_mixed(tmp_path):
    rng = random.Random(3)
    for k in range(6):
        command = [sys.executable, "-c", REPLACE, str(tmp_path), f"{k}-"]
        writers = [subprocess.Popen(command) for _ in range(2)]
        time.sleep(0.3 + rng.random() / 5)
        for writer in writers:
            writer.kill()
            writer.wait()
        assert is_complete(tmp_path), k
    with write_together(tmp_path, "last") as temporary:
        (temporary / "last").touch()
    assert {path.name for path in tmp_path.iterdir()} <= {"a", "b", "last"}  # no temporary files


def test_an_exception_leaves_the_old_files(tmp_path):
    with write_together(tmp_path, "last") as temporary:
        (temporary / "last").write_text("old")
    with pytest.raises(ZeroDivisionError), write_together(tmp_path, "last") as temporary:
        (temporary / "last").write_text("new")
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["last"]
    assert (tmp_path / "last").read_text() == "old"


def test_signals_are_deferred_while_files_are_moved(tmp_path, monkeypatch):
    moved = []
    replace = os.replace

    def interrupted(*paths):
        signal.raise_signal(signal.SIGINT)
        replace(*paths)
        moved.append(paths)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), write_together(tmp_path, "last") as temporary:
        for name in ("a", "last"):
            (temporary / name).touch()
    assert len(moved) == 2 and {p.name for p in tmp_path.iterdir()} == {"a", "last"}


def test_a_full_disk_and_a_read_only_folder_are_reported(study, derivatives, monkeypatch):
    out = study / "cbf.nii.gz"
    image = study / "sub-01" / "perf" / "sub-01_asl.nii.gz"

    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("aslkit.outputs.maps.write_image", full)
    done = CliRunner().invoke(asl_fit_ls, ["-i", str(image), "-o", str(out)])
    assert done.exit_code == 3 and "No space left on device" in done.output
    assert not list(study.glob("*cbf*")) and not list(study.glob(f"{PREFIX}*"))
    derivatives.parent.touch()
    assert "found a folder that cannot be written (" in run(study, derivatives, code=3)


def test_concurrent_runs_record_all_failures(tmp_path):
    (tmp_path / "logs").mkdir()
    threads = [
        threading.Thread(target=record_outcome, args=(tmp_path, f"sub-{i}", 3, "why"))
        for i in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failures(tmp_path)) == 20
    record_outcome(tmp_path, "sub-7", 0, "")
    assert len(failures(tmp_path)) == 19


@pytest.mark.slow
def test_two_simultaneous_runs_into_one_folder_give_complete_maps(study, derivatives):
    arguments = ("--bids", study, "--derivatives", derivatives, "--overwrite")
    processes = [start(*arguments) for _ in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert len(list(derivatives.rglob("*_desc-ls_cbf.json"))) == 4
    for path in derivatives.rglob("*.nii.gz"):
        nib.load(path).get_fdata()
    assert not list(derivatives.rglob(f"{PREFIX}*"))


def shell(script, *arguments, **environment):
    return subprocess.run(
        ["bash", str(BIN / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.fixture
def path_with_command(tmp_path):
    """PATH with asl_fit_ls of this checkout and an sbatch that runs the array directly."""
    folder = tmp_path / "bin folder"
    folder.mkdir()
    command = folder / "asl_fit_ls"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m aslkit.cli.fit_ls "$@"\n')
    sbatch = folder / "sbatch"
    sbatch.write_text(
        f"""#!/usr/bin/env bash
printf '%s\\n' "$@" >"{folder}/sbatch_arguments"
script=$(cat)
for k in 1 2; do SLURM_ARRAY_TASK_ID=$k bash -c "$script" || exit; done
"""
    )
    for path in (command, sbatch):
        path.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


SCRIPTS = sorted(path.name for path in BIN.glob("asl_*.sh"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_without_arguments_prints_its_usage(script):
    done = shell(script)
    assert done.returncode == 2 and done.stderr.startswith(f"Usage: {script}")


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_finds_nothing_in(script):
    done = subprocess.run(["shellcheck", str(BIN / script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_the_loop_over_subjects_accepts_spaces_in_paths_and_continues_after_a_failure(
    study, derivatives, path_with_command
):
    damage(study)
    arguments = ("asl_fit_ls", study, derivatives, "--t1b", 1.7)
    dry = shell("asl_batch.sh", "--dry-run", *arguments)
    assert dry.returncode == 0 and dry.stdout.count("--participant-label sub-0") == 3
    assert "my\\ study" in dry.stdout and not derivatives.exists()
    done = shell("asl_batch.sh", *arguments, PATH=path_with_command)
    assert done.returncode == 4, done.stderr
    assert "sub-02: FAILED (4)" in done.stderr and "3 subjects, 1 failed" in done.stdout
    assert len(list(derivatives.rglob("*_desc-ls_cbf.nii.gz"))) == 3


@pytest.mark.slow
def test_the_job_array_processes_every_scan(study, derivatives, path_with_command):
    options = {"PATH": path_with_command, "SBATCH_OPTIONS": "--partition=short --mem=8G"}
    arguments = (2, "asl_fit_ls", study, derivatives, "-q")
    dry = shell("asl_slurm_array.sh", "--dry-run", *arguments, **options)
    assert dry.returncode == 0 and "--array=1-2" in dry.stdout and not derivatives.exists()
    done = shell("asl_slurm_array.sh", *arguments, **options)
    assert done.returncode == 0, done.stderr
    given = Path(path_with_command.partition(os.pathsep)[0], "sbatch_arguments").read_text()
    assert "--partition=short\n--mem=8G\n" in given
    assert len(list(derivatives.rglob("*_desc-ls_cbf.nii.gz"))) == 4
    assert "expected a whole number" in shell("asl_slurm_array.sh", 0, *arguments[1:]).stderr


def test_a_folder_with_the_name_of_an_output_file_is_reported(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError), write_together(tmp_path, "last") as temporary:
        for name in ("a", "last"):
            (temporary / name).touch()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_failure_to_record_is_reported(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        record_outcome(tmp_path / "nothing", "sub-01", 3, "why")
