"""Writes the data card: README.md, which the hub shows and `datasets.load_dataset(folder)` follows."""

from __future__ import annotations

from curate.publish.licence import Licence, licence_of
from curate.publish.records import KeptRecords
from curate.publish.texts import environment
from curate.read.files import Source
from curate.types import Template


def write_card(records: KeptRecords, source: Source, *, name: str, template: Template, about: str = "") -> None:
    """Write README.md beside the kept records.

    Its front matter states the licence of the source (`unknown` if it states none). It also has `configs:`, so that
    `datasets.load_dataset(folder)` loads the kept records and no other file. The text says how the records were chosen,
    with which prompt template they were scored, and which file is for which program.

    Args:
        records: what `describe_kept` returned.
        source: the input that the records came from.
        name: name of the selection; the data set is called curate_NAME.
        template: the prompt template of the scoring.
        about: how the records were chosen, in Markdown.
    """
    text = environment().get_template("card.md.jinja")
    head = _front_matter(records, licence_of(source))
    card = text.render(head=head, records=records, name=name, template=template, about=about.strip())
    (records.path.parent / "README.md").write_text(card, encoding="utf-8")


def _front_matter(records: KeptRecords, licence: Licence) -> str:
    """Return the front matter of the data card, YAML without its --- lines."""
    # Written by the hub's own library: it knows which keys the hub reads, and quotes what YAML would misread.
    from huggingface_hub import DatasetCardData

    files = [{"split": "train", "path": records.path.name}]
    facts = DatasetCardData(
        **licence,  # type: ignore[arg-type]  # license_name and license_link are among the keys it takes
        task_categories=["text-generation"],
        configs=[{"config_name": "default", "data_files": files}],
    )
    return facts.to_yaml().strip()
