"""Experiments 00 to 20: their configurations, base files, and tables of results."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from aslkit.config import dump_config, load_config
from aslkit.core.errors import InputError
from aslkit.nets.encoding_registry import build_encoding
from aslkit.nets.registry import build_network
from aslkit.train.registry import build_recipe

BIN = Path(__file__).parents[1] / "bin" / "dev"
FULL = {"film_at_bottleneck": True, "film_at_decoder": True, "output_modulation": True}
AWARE = {"network.kind": "amplitude_aware", **{f"network.{k}": v for k, v in FULL.items()}}
RANDOM = {"data.domain_randomization": True, "data.t1_blood_s": 1.85}
# Differences of each from experiment 00.
DEFINITIONS = {
    "exp00": {},
    "exp01": {"encoding.normalization": "per_curve"},
    "exp02": AWARE,
    "exp03": AWARE | {"network.film_at_bottleneck": False, "network.film_at_decoder": False},
    "exp04": AWARE | {"network.output_modulation": False},
    "exp05": AWARE | {"network.film_at_decoder": False, "network.output_modulation": False},
    "exp06": AWARE | {"loss.data_consistency_weight": 0.1},
    "exp07": AWARE | {"loss.data_consistency_weight": 0.3},
    "exp08": AWARE | RANDOM,
    "exp09": AWARE
    | RANDOM
    | {"encoding.features": ["mean", "std", "peak", "t1_artery"], "members": 3},
}
LOOKS = {
    "validation.interval_steps": 100,
    "validation.batches": 4,
    "validation.patience": 1000,
}
PLAN_SNRS = (0.5, 1, 2, 5, 10, 15, 20, 25, 50)  # of its experiment 19; its 10 is 30 here
# Differences of the others: name, base after the colon, changed keys.
OWN = {
    "exp10: exp09": {"network.separate_decoders": True},
    "exp11: exp10": {"network.att_film": True},
    "exp11b: exp10": {"network.att_attention": True},
    "exp12a: exp09": {"loss_weighting": "validation"} | LOOKS,
    "exp12b: exp09": {"loss_weighting": "learned"},
    "exp12c: exp10": {"cbf_first_fraction": 0.6},
    "exp13: exp09": {
        "data.extended_randomization": True,
        "data.t1_blood_range_s": [1.4, 2.3],
        "data.alpha_pcasl_range": [0.65, 0.98],
        "data.alpha_vsasl_range": [0.3, 0.8],
        "data.noise_type": "gaussian",
    },
    "exp15: exp09": {"data.patch_size": 128, "data.patches_per_step": 8},
    "exp16: exp15": {"network.context_branch": True},
    "exp17: exp09": {"network.dropout": 0.3},
    "exp17b: exp09": {"network.dropout": 0.5},
    "exp17c: exp09": {"network.confidence_head": True},
    "exp18: exp09": {"members": 5},
    "exp19: exp09": {"data.snr_levels": [3 * snr for snr in PLAN_SNRS]},
    "exp20: exp09": {"pretraining_fraction": 0.25, "network.denoising_head": True},
}
NAMES = [*DEFINITIONS, *(pair.partition(":")[0] for pair in OWN)]
TINY = ("network.widths=[8,16]", "data.patch_size=16", "data.patches_per_step=2")


def flat(config):
    values = yaml.safe_load(dump_config(config))
    sections = {k: v for k, v in values.items() if isinstance(v, dict)}
    rest = {k: v for k, v in values.items() if k not in sections and k != "name"}
    return rest | {f"{s}.{k}": v for s, own in sections.items() for k, v in own.items()}


def without_false(values):
    """Remove options that are off, because other networks do not have them."""
    return {k: v for k, v in values.items() if v is not False}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_an_experiment_differs_from_the_first_as_the_plan_says(name):
    expected = flat(load_config("exp00")) | DEFINITIONS[name]
    assert without_false(flat(load_config(name))) == without_false(expected)


@pytest.mark.parametrize("pair", OWN)
def test_an_idea_differs_from_its_base_by_its_switch_alone(pair):
    name, base = pair.split(": ")
    usual = flat(load_config(base)) | {"members": 1}
    assert flat(load_config(name)) == usual | OWN[pair]


def test_experiment_09_is_production_v2():
    assert flat(load_config("exp09")) == flat(load_config("production_v2"))


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_takes_a_step(name):
    config = load_config(name, TINY)
    network = build_network(config.network, build_encoding(config))
    batch = build_recipe(config).draw(np.random.default_rng(0))
    loss = build_recipe(config).losses(network(batch["channels"]), batch).sum()
    loss.backward()
    slopes = [p.grad for p in network.parameters() if p.grad is not None]
    assert torch.isfinite(loss) and any(g.abs().max() > 0 for g in slopes)


def written(folder, name, values):
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


def test_a_file_holds_only_what_differs_from_its_base(tmp_path):
    middle = written(
        tmp_path, "middle", {"base": "exp02", "data": {"patch_size": 32}, "name": "m"}
    )
    top = written(
        tmp_path, "top", {"base": middle, "data": {"patches_per_step": 4}, "n_epochs": 2}
    )
    expected = load_config(
        "exp02", ("data.patch_size=32", "data.patches_per_step=4", "steps=2000", "name=m")
    )
    assert load_config(top) == expected


def test_a_section_of_another_kind_replaces_that_of_the_base(tmp_path):
    plain = {"base": "exp09", "network": {"kind": "spatial", "widths": [8, 16]}}
    config = load_config(written(tmp_path, "plain", plain))
    assert config.network.model_dump() == {
        "kind": "spatial",
        "widths": (8, 16),
        "norm": "group",
        "dropout": 0.0,
    }


def test_a_missing_or_circular_base_is_refused(tmp_path):
    with pytest.raises(InputError, match="found nothing_such, expected a YAML file or one of"):
        load_config(written(tmp_path, "lost", {"base": "nothing_such"}))
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    one.write_text(f"base: {other}")
    other.write_text(f"base: {one}")
    with pytest.raises(InputError, match="base: found .*one.yaml, expected a configuration that"):
        load_config(str(one))


def test_tables_of_errors_biases_and_win_rates_are_written_between_the_marks_of_a_page(
    tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(str(BIN))
    import experiments_table

    columns = ["track", "phantoms", "snr", "estimator", "stratum", "quantity", "metric", "value"]
    rows = [
        ("matched", "brain", "3", e, "brain", q, m, v)
        for e in ("LS", "exp00")
        for q in ("cbf", "att")
        for m, v in (("MAE", 4.256), ("bias", -0.512))
    ]
    rows.append(("matched", "brain", "3", "exp00", "brain", "cbf", "win rate", 0.614))
    rows += [
        ("matched", "brain", "5", "exp00", "brain", "cbf", metric, value)
        for metric, value in (
            ("scale 0.1 to 10 ratio", 98.76),
            ("scale x3 slope", 0.9),
            ("FOV fill 27% mean change", 0.0123),
        )
    ]
    table = tmp_path / "results.tsv"
    with table.open("w") as lines:
        csv.writer(lines, delimiter="\t").writerows([columns, *rows])
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- tables -->\nold\n<!-- end of tables -->\nbelow\n")
    monkeypatch.setattr(sys, "argv", ["experiments_table.py", str(table), "--into", str(page)])
    experiments_table.main()
    text = page.read_text()
    assert text.startswith("above\n") and text.endswith("below\n") and "old" not in text
    assert "| exp00 | 4.26 (-0.51, 61%) |" in text and "| LS | 4.26 (-0.51) |" in text
    assert "| exp00 | 98.8 | 0.900 | +1.23% |" in text


def test_errors_by_protocol_have_a_column_per_method_and_track(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BIN))
    import protocol_tables

    columns = ["track", "phantoms", "snr", "protocol", "estimator", "stratum"]
    columns += ["quantity", "metric", "value"]
    cells = (
        ("mismatched", "3", "joint6", "LS", 6.7),
        ("matched", "3", "joint6", "LS", 5.04),
        ("matched", "3", "joint6", "Cramér-Rao", 4.96),
        ("matched", "3", "pcasl6", "LS", 13.72),
        ("matched", "30", "joint6", "LS", 0.53),
        ("matched", "3", "pcasl6", "Cramér-Rao", "n/a"),
    )
    rows = [[t, "brain", s, p, e, "brain", "cbf", "MAE", v] for t, s, p, e, v in cells]
    table = tmp_path / "results.tsv"
    with table.open("w") as lines:
        csv.writer(lines, delimiter="\t").writerows([columns, *rows])
    monkeypatch.setattr(sys, "argv", ["protocol_tables.py", str(table)])
    protocol_tables.main()
    printed = capsys.readouterr().out
    assert "| protocol | Cramér-Rao | LS | LS (mis.) |" in printed
    assert "| joint6 | 5.0 | 5.0 | 6.7 |" in printed and "| pcasl6 | – | 13.7 | – |" in printed
    assert printed.index("SNR 3,") < printed.index("SNR 30,")


def script_trains(tmp_path, *arguments):
    """Return the lines of arguments that the script passes to asl_train."""
    command = tmp_path / "asl_train"
    command.write_text(f'#!/bin/bash\necho "$*" >> "{tmp_path}/calls"\n')
    command.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = ["bash", str(BIN / "train_experiments.sh"), str(tmp_path / "runs"), *arguments]
    subprocess.run(script, check=True, env=environment)
    return (tmp_path / "calls").read_text().splitlines()


def test_the_script_trains_a_list_with_the_same_number_of_pixels(tmp_path):
    budget = ("--set", "steps=1200", "--set", "data.patches_per_step=16")
    found = script_trains(tmp_path, "1", "exp10", "exp11:2", "exp15", *budget)
    runs = tmp_path / "runs"
    assert found == [
        f"--config exp10 --set seed=0 --out {runs}/exp10 --set steps=1200"
        " --set data.patches_per_step=16",
        f"--config exp11 --set seed=2 --out {runs}/exp11-seed2 --set steps=1200"
        " --set data.patches_per_step=16",
        f"--config exp15 --set seed=0 --out {runs}/exp15 --set steps=1200"
        " --set data.patches_per_step=4",
    ]


def test_the_script_trains_experiments_00_to_09_by_default_and_resumes(tmp_path):
    begun = tmp_path / "runs" / "exp09" / "member-2"
    begun.mkdir(parents=True)
    (begun / "checkpoint.safetensors").touch()
    found = script_trains(tmp_path)
    assert len(found) == 12 and [line for line in found if line.endswith("--resume")] == found[:1]
    assert {line.split()[1] for line in found} == set(DEFINITIONS)
