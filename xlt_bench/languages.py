"""The language table: every language of FLORES-200 and every locale of MASSIVE 1.1.

The rows are in `languages.tsv`. Codes and names of the paper's 41 languages are those of its Table
1, Table 10 and Appendix C; the others are FLORES-200's. Resource level: Table 1 of the NLLB paper
(NLLB Team, 2022), which calls a language low-resource if fewer than a million sentence pairs with
any other language are public. Family: the top-level family by its common name.

The table says which languages exist and what the publishers call them. Which of them a task ranks,
and in which setting, is pinned for each version of a task (`tasks/pinned/`). Whether a language is
*aligned* is a property of an adapter.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from xlt_bench.errors import unknown

Setting = Literal["supervised", "transfer"]
TABLE = Path(__file__).with_name("languages.tsv")


@dataclass(frozen=True)
class Language:
    """One row of the table.

    `code` is what the command line takes (`sw`). `flores` is the FLORES-200 code, `massive` the
    locale of MASSIVE 1.1, `uner` the treebank of Universal NER and `ntrex` the code in NTREX-128;
    the last three are None if the data set lacks the language. `resource` is None if NLLB does not
    state the level.
    """

    code: str
    name: str
    flores: str
    script: str
    family: str
    resource: Literal["high", "low"] | None
    massive: str | None
    uner: str | None
    ntrex: str | None


def read_table(path: Path = TABLE) -> dict[str, Language]:
    """Read the rows of a language table, by code.

    Raises:
        ValueError: A column is missing or unknown, or a code occurs twice.
    """
    optional = {"resource", "massive", "uner", "ntrex"}
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        columns = [field.name for field in fields(Language)]
        if reader.fieldnames != columns:
            raise ValueError(f"{path}: the columns must be {columns}, not {reader.fieldnames}")
        cells = [{k: v or None if k in optional else v for k, v in row.items()} for row in reader]
    rows = [Language(**row) for row in cells]  # type: ignore[arg-type]
    table = {row.code: row for row in rows}
    if len(table) < len(rows):
        raise ValueError(f"{path}: a code occurs twice; codes must be unique")
    return table


LANGUAGES = read_table()
_BY_NAME = {
    name: row for row in LANGUAGES.values() for name in (row.massive, row.flores, row.code) if name
}


def language(code: str) -> Language:
    """The row of a language, by its code (`sw`), FLORES code (`swh_Latn`) or locale (`sw-KE`).

    Raises:
        InputError: There is no such language; the message names the nearest codes.
    """
    if code not in _BY_NAME:
        raise unknown("language", code, LANGUAGES)
    return _BY_NAME[code]
