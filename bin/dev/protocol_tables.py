"""results.tsv of asl_validate -> the tables of docs/benchmark.md: errors by protocol.

Usage: python bin/dev/protocol_tables.py RESULTS.tsv [--into PAGE.md]
Prints the tables, or writes them between the two marks of a page.
"""

import argparse
from pathlib import Path

from experiments_table import QUANTITIES, laid_out, of_brains, write

from aslkit.validate.design import MATCHED
from aslkit.validate.records import BOUND

DECIMALS = {"cbf": 1, "att": 0}


def main() -> None:
    """Read the results and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--into", type=Path)
    options = parser.parse_args()
    rows = [r for r in of_brains(options.results) if r["metric"] == "MAE" and r["value"] != "n/a"]
    snrs = sorted({r["snr"] for r in rows}, key=float)
    write("\n".join(table(rows, snr, q) for snr in snrs for q in QUANTITIES), options.into)


def table(rows: list[dict[str, str]], snr: str, quantity: str) -> str:
    """Return a table: rows are protocols, columns the Cramér-Rao bound, methods and tracks."""
    own = [r for r in rows if (r["snr"], r["quantity"]) == (snr, quantity)]
    cells = {
        (r["protocol"], r["estimator"], r["track"]): f"{float(r['value']):.{DECIMALS[quantity]}f}"
        for r in own
    }
    methods = dict.fromkeys((estimator, track) for _, estimator, track in cells)
    columns = sorted(methods, key=lambda m: (m[1] != MATCHED, m[0] != BOUND))
    lines = [
        [protocol, *(cells.get((protocol, *method), "–") for method in columns)]
        for protocol in dict.fromkeys(r["protocol"] for r in own)
    ]
    heads = [f"{e}{'' if track == MATCHED else ' (mis.)'}" for e, track in columns]
    return laid_out(f"SNR {snr}, {QUANTITIES[quantity][0]}", ["protocol", *heads], lines)


if __name__ == "__main__":
    main()
