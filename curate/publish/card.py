"""The data card: README.md, which the hub shows and `datasets.load_dataset(folder)` obeys."""

from __future__ import annotations

from curate.publish.licence import Licence, licence_of
from curate.publish.records import KeptRecords
from curate.publish.texts import environment
from curate.read.files import Source
from curate.types import Template


def write_card(records: KeptRecords, source: Source, *, name: str, template: Template, about: str = "") -> None:
    """Write README.md beside the kept records.

    Its front matter has the source's licence (`unknown` where none is stated) and `configs:`, so that
    `datasets.load_dataset(folder)` gives the kept records and nothing else. The text says how they were chosen, in
    which template they were scored, and which file is for which program.

    Args:
        records: what `describe_kept` returned.
        source: the input they came from.
        name: the selection's name; the data set is called curate_NAME.
        template: in which they were scored.
        about: Markdown: how the records were chosen.
    """
    text = environment().get_template("card.md.jinja")
    head = _front_matter(records, licence_of(source))
    card = text.render(head=head, records=records, name=name, template=template, about=about.strip())
    (records.path.parent / "README.md").write_text(card, encoding="utf-8")


def _front_matter(records: KeptRecords, licence: Licence) -> str:
    from huggingface_hub import DatasetCardData

    files = [{"split": "train", "path": records.path.name}]
    facts = DatasetCardData(
        **licence,  # type: ignore[arg-type]  # license_name and license_link are among the keys it takes
        task_categories=["text-generation"],
        configs=[{"config_name": "default", "data_files": files}],
    )
    return facts.to_yaml().strip()
