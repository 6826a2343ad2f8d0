"""Tables -> TSV text, as in BIDS."""

from collections.abc import Iterable, Sequence

import pandas as pd


def tsv_text(table: pd.DataFrame) -> str:
    """Format a table as TSV; missing values become n/a, and floats have six digits."""
    return str(
        table.to_csv(sep="\t", index=False, na_rep="n/a", float_format="%.6g", lineterminator="\n")
    )


def rows_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Format rows as TSV, with a value for each column; None becomes n/a."""
    return tsv_text(pd.DataFrame(list(rows), columns=list(columns)))
