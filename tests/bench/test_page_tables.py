"""The tables of measured results in the pages are those of the result files."""

from __future__ import annotations

from pathlib import Path

import pytest

from homomorph.errors import DataError
from homomorph_bench.page_tables import PAGES, with_tables

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


@pytest.mark.parametrize("name", PAGES)
def test_tables_are_those_of_the_result_files(name: str) -> None:
    page = (ROOT / name).read_text(encoding="utf-8")
    assert page == with_tables(ROOT, name, RESULTS), "write them again: make tables"


def test_a_page_without_marks_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "serving.md"
    page.parent.mkdir()
    page.write_text("# Serving\n")
    with pytest.raises(DataError, match="<!-- serving -->"):
        with_tables(tmp_path, "docs/serving.md", RESULTS)
