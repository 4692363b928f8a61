"""What the states of a task mean, in a line each."""

from __future__ import annotations

from django.utils.functional import Promise
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from django_jobs.admin.rendering import badge
from django_jobs.states import State

MEANINGS: dict[str, str | Promise] = {
    State.READY: _("due: the next free worker of its queue takes it"),
    State.SCHEDULED: _("due later, at the time given below"),
    State.BLOCKED: _("waits for other tasks or for a limit"),
    State.RUNNING: _("a worker has it"),
    State.SUCCESSFUL: _("it returned"),
    State.REVOKED: _("somebody took it back"),
    State.EXPIRED: _("it was too late to start it"),
    State.FAILED: _("it is not tried again until somebody puts it back to work"),
}
AGAIN = _("an attempt has ended; the next one is due at the time given below")
REVOKING = _("it is being revoked: its worker interrupts it")


def in_words(state: str, meaning: str | Promise | None = None) -> SafeString:
    """Return a state with its meaning: the one given, or that of the state."""
    words = MEANINGS.get(state, "") if meaning is None else meaning
    return format_html(
        '{} <span class="jobs-meaning">{}</span>', badge(str(state)), words
    )
