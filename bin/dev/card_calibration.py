"""results.json of asl_validate -> coverage of a model's intervals, as JSON for its card.

Usage: python bin/dev/card_calibration.py RESULTS MODEL [CARD]

RESULTS is results.json of `asl_validate --phantoms data/phantoms --model MODEL`. Prints the field
`calibration`; with CARD, a model.json, writes it there.
"""

import argparse
import json
from pathlib import Path

from aslkit.nets.card_text import interval_coverage


def main() -> None:
    """Print the field, or write it into a model card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("model")
    parser.add_argument("card", type=Path, nargs="?")
    arguments = parser.parse_args()
    records = json.loads(arguments.results.read_text())["records"]
    field = {"calibration": interval_coverage(records, arguments.model)}
    if arguments.card is None:
        print(json.dumps(field, indent=2))
        return
    card = {**json.loads(arguments.card.read_text()), **field}
    arguments.card.write_text(json.dumps(card, indent=2) + "\n")


if __name__ == "__main__":
    main()
