"""The whole life of a model in one job: pretrain, finetune, inference, each with its own record."""

from collections.abc import Callable

from experiments.job import Job, Outcome


def lifecycle(
    job: Job,
    *,
    pretrain: Callable[[Job], Outcome],
    finetune: Callable[[Job], Outcome],
    inference: Callable[[Job], Outcome],
) -> Outcome:
    """Run the three phases one after the other, each from the checkpoint of the one before; one that is complete is kept.

    Args:
        job: the config and the directory; each phase has a subdirectory of its name.
        pretrain: the first phase, with its options bound.
        finetune: the second.
        inference: the third.

    Returns:
        What the phases left, and the metrics of the last one.
    """
    first = job.finished("pretrain") or pretrain(job.at("pretrain"))
    second = job.finished("finetune") or finetune(job.at("finetune", first.checkpoint))
    third = inference(job.at("inference", second.checkpoint))
    parts = {"pretrain": first, "finetune": second, "inference": third}
    return Outcome(job.directory, second.checkpoint, third.metrics, parts)
