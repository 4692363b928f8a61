"""Whose turn it is: which queues a claim asks, in which order and for how many."""

from __future__ import annotations

import random

from django_jobs.records import Demand
from django_jobs.worker.options import WorkerOptions


class Turns:
    """Makes the demands of a worker from its queues and their weights."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._total = sum(options.weights)
        self._next = 0

    def demand(self, wanted: int) -> Demand:
        """Return what to claim; with weights perhaps less than is wanted."""
        options = self._options
        queues, limit = options.queues, wanted
        if options.weights:
            queues, limit = self._weighted(wanted)
        return Demand(limit, queues, options.exclude, is_strict=bool(queues))

    def _weighted(self, wanted: int) -> tuple[tuple[str, ...], int]:
        """Return the queues with one of them in front, and how many to take of it.

        A large claim would take a whole batch of one queue: there each queue in turn
        gets its share of the batch. In a small one the weights are the odds. Either
        way the others follow, so that an empty queue costs nobody a slot.
        """
        drawn = _draw(self._options.queues, self._options.weights)
        if wanted < self._total:
            return drawn, wanted
        place = self._next
        self._next = (place + 1) % len(self._options.queues)
        first = self._options.queues[place]
        share = wanted * self._options.weights[place] // self._total
        return (first, *(queue for queue in drawn if queue != first)), share


def _draw(queues: tuple[str, ...], weights: tuple[int, ...]) -> tuple[str, ...]:
    """Return the queues in a random order in which the weights are the odds.

    Weighted sampling without replacement after Efraimidis and Spirakis (2006): sort
    by u ** (1 / weight).
    """
    keys = {
        queue: random.random() ** (1 / weight)  # noqa: S311 - fairness, not secrecy
        for queue, weight in zip(queues, weights, strict=True)
    }
    return tuple(sorted(queues, key=keys.__getitem__, reverse=True))
