r"""Joins the stages, from records to the comparison; the only room that does.

    records -> examples -> tokens -> scores ----\
                  \------> embeddings -> clusters -> selection -> adapter -> evaluation -> comparison

Start with `verbs.perform`: it runs the stages of a verb (run, score, select, ...) in a run folder. Stages are alike.
A stage has a key, which says what its result depends on. If the manifest holds the stage with that key, it is skipped.
Otherwise the stage computes, replaces its files, and enters itself in the manifest.

With several processes the main one reads the input, prepares every stage and publishes its result. All of them compute.

A verb loads only what it needs: `select` loads neither torch nor a model.

What every stage is given, in reading order:

    verbs.py         the verbs: which stages each of them runs
    opening.py       locks the run folder and settles a job in it
    settle.py        replaces every `auto` of a recipe, once for the whole job
    given.py         records and a model that a caller hands in from memory
    loaded.py        tokenizers and the scoring model of a job, each loaded once
    job.py           one call of a verb, with what was settled and loaded for it
    environment.py   versions, seed, device, threads and git commit, for the manifest

From records to scores:

    tokens.py        records to work/tokens: the first pass over the input
    rows.py          scores.parquet before there is a score: id and status of every record
    needed.py        which scores a verb computes, and why
    compute.py       how the batches of a plan are computed
    parts.py         one part of a score, computed chunk by chunk by every process
    scores.py        the complexity pass: tokens to scores.parquet
    subnets.py       what the further scores compute: IFD, masks, dropout
    passes.py        the further passes, each with its own key and columns

From vectors to the kept records:

    embeddings.py    texts to embeddings.npy
    clusters.py      embeddings.npy to clusters.parquet
    verified.py      reads tables of the run, and refuses those that this run did not write
    candidates.py    what a selection chooses from, read from the run folder
    selection.py     scores and clusters to selections/NAME: the second pass over the input
    hand_over.py     the files with which other training programs continue

From the kept records to what they are worth:

    features.py      input ids and labels of chosen records, for the model to train
    adapter.py       a selection to its LoRA adapter
    merged.py        an adapter in the weights of its model: the folder merged/
    library_errors.py  errors of libraries while training, as errors of this package
    references.py    the sets that a model is evaluated on, as tokens
    losses.py        losses and task results of a loaded model
    evaluation.py    an adapter to evaluation.json and evaluation.parquet
    plan_cells.py    which cells a comparison has
    cell_selections.py  which records every cell keeps
    cell.py          one cell: selected, trained, evaluated
    observations.py  what is reported beside the table: overlaps, lengths, correlations, labels
    comparison.py    all cells, and the table of their results

What people look at:

    preview.py       which tokens would be scored, without the weights of the model
    probe_sample.py  a sample of the input, read and tokenised, with counts for the whole
    probe_scores.py  what scoring costs here, from a few batches of the plan
    probe_stages.py  what embedding, clustering, training and evaluating cost here
    cost_of_scores.py  from these probes to seconds and memory of every pass
    cost_of_stages.py  from these probes to seconds and memory of the other stages
    estimate.py      what a run will take; nothing is written into its folder
    stored_estimate.py  stores an estimate, and beside it what the run really took
    doctor.py        proves that a model is scored correctly on this machine
    doctor_tokenizer.py  the doctor's checks of the tokenizer and its chat template
    doctor_model.py  the doctor's checks of the model
    pages.py         the report of a run, and the difference of two selections
"""

from __future__ import annotations

from curate.pipeline.opening import open_job
from curate.pipeline.verbs import BEGINS, Verb, perform

__all__ = ["BEGINS", "Verb", "open_job", "perform"]
