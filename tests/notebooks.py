"""Run the notebooks in a real kernel and store what they show: python tests/notebooks.py [NOTEBOOK ...]

Each runs in an empty folder. Of its outputs only what reads well elsewhere is stored: no progress, and nothing that
libraries say on stderr. Needs the extras demo, report and dev.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def executed(path: Path, folder: Path) -> Any:
    """Return a notebook as it is after it was run from top to bottom in `folder`."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources, record_timing=False).execute()
    for number, cell in enumerate(cell for cell in notebook.cells if cell.cell_type == "code"):
        cell.execution_count = number + 1
        cell.metadata = {}
        cell.outputs = [output for output in cell.outputs if _is_worth_storing(output)]
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    return notebook


def _is_worth_storing(output: Any) -> bool:
    if output.output_type == "stream":
        return bool(output.name == "stdout")
    return output.output_type != "display_data" or any(output.data.values())  # a progress bar ends as nothing


def main() -> None:
    """Run and store the notebooks named on the command line, or all."""
    import nbformat

    for path in map(Path, sys.argv[1:] or NOTEBOOKS):
        with tempfile.TemporaryDirectory() as folder:
            notebook = executed(path, Path(folder))
        nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
