"""What users of other task queues may write, and our words for it.

Celery, RQ, Dramatiq, Huey, django-q, ARQ and Procrastinate are looked at.
"""

from __future__ import annotations

from collections.abc import Mapping

#: Our options, and what the same is called elsewhere.
_ELSEWHERE = {
    "run_after": "countdown eta delay schedule schedule_in schedule_at scheduled_for "
    "enqueue_in enqueue_at run_at next_run defer_by defer_until _defer_by _defer_until",
    "queue_name": "queue _queue_name routing_key exchange",
    "max_attempts": "retries max_retries retry max_tries tries attempts max_retry",
    "time_limit": "timeout job_timeout hard_time_limit max_runtime",
    "soft_time_limit": "soft_timeout",
    "expires": "expires_in expiry expire ttl max_age _expires",
    "priority": "prio at_front",
    "metadata": "meta headers tags properties",
    "on_commit": "enqueue_on_commit delay_on_commit",
    "backoff": "retry_backoff retry_backoff_max retry_delay default_retry_delay "
    "retry_interval retry_policy retry_jitter min_backoff max_backoff",
    "retry_on": "autoretry_for retry_for retry_exceptions retry_when",
    "give_up_on": "dont_autoretry_for throws",
    "takes_context": "bind pass_context context",
    "store_result": "ignore_result store_results save",
    "result_retention": "result_ttl result_expires keep_result",
    "sensitive": "argsrepr kwargsrepr",
    "name": "actor_name task_name job_name",
}
#: An example of each option.
_EXAMPLES = {
    "run_after": "run_after=60",
    "queue_name": 'queue_name="mail"',
    "max_attempts": "max_attempts=4",
    "time_limit": "time_limit=60",
    "soft_time_limit": "soft_time_limit=50",
    "expires": "expires=3600",
    "priority": "priority=10",
    "metadata": 'metadata={"key": "value"}',
    "on_commit": "on_commit=True",
    "backoff": "backoff=[5, 60]",
    "retry_on": "retry_on=[OSError]",
    "give_up_on": "give_up_on=[ValueError]",
    "takes_context": "takes_context=True",
    "store_result": "store_result=False",
    "result_retention": "result_retention=86400",
    "sensitive": 'sensitive=["password"]',
    "name": 'name="mail.send"',
    "atomic": "atomic=True",
}
_NOTES = {
    "run_after": ", in seconds, or a timedelta or datetime",
    "max_attempts": ", the first attempt included",
    "time_limit": ", in seconds",
    "expires": ", in seconds, or a timedelta",
}
#: What the attributes of their tasks are here; {task} is the name of the task.
_ATTRIBUTES = {
    "{task}.enqueue(...)": "delay send push kiq delay_on_commit submit spawn",
    "await {task}.aenqueue(...)": "adelay delay_async defer_async asend",
    "{task}.using(run_after=60).enqueue(...)": "schedule defer enqueue_in enqueue_at",
    "{task}.using(...).enqueue(...)": "apply_async apply_async_on_commit "
    "send_with_options enqueue_call",
    "{task}.using(...)": "configure set",
    "{task}.s(...)": "si subtask signature message message_with_options",
    "{task}.call(...)": "apply call_local",
    "{task}.func": "fn",
    "{task}.get_result(id)": "AsyncResult",
    "enqueue_many([{task}.s(1), {task}.s(2)])": "map starmap chunks",
    "raise Retry(after=60)": "retry",
    "@task(takes_context=True)": "request",
}
#: What the attributes of a call with its arguments are here.
_OF_A_CALL = {
    "task.s(...).enqueue()": "delay apply_async send push kiq defer submit",
    "await task.s(...).aenqueue()": "adelay delay_async defer_async asend",
    "task.s(...).using(...)": "set options configure",
    "task.s(...).definition": "task",
}
#: What the attributes of their results are here.
_OF_A_RESULT = {
    "result.status": "state get_status",
    "result.is_finished": "ready done",
    "result.status == State.SUCCESSFUL": "successful succeeded",
    "result.status == State.FAILED": "failed is_failed",
    "result.return_value": "result",
    "result.get(timeout=10)": "wait join get_result",
    "result.id": "task_id job_id",
    "result.errors[-1].traceback": "traceback exc_info",
    "result.revoke()": "cancel abort",
    "result.metadata": "meta",
    "result.finished_at": "date_done ended_at",
}
#: What the names of their packages are here.
_OF_THE_PACKAGE = {
    "from django_jobs import task": "shared_task actor job db_task background",
    "@task on the function, and function.enqueue(...)": "async_task enqueue",
    "from django_jobs import current_context": "current_task get_current_job",
    "from django_jobs import fetch_result": "AsyncResult Job fetch",
}
#: What there is not, in the words of others, and what to do about it.
_ABSENT = {
    "there are no rate limits yet": "rate_limit throttle",
    "there are no unique tasks yet": "unique unique_key unique_for singleton "
    "lock_task queueing_lock",
    "there are no periodic tasks yet, enqueue it from a cron job": "schedule cron "
    "crontab every repeat periodic Schedule periodic_task db_periodic_task",
    "there are no workflows yet, enqueue the next task at the end of the last": "chain "
    "group chord link link_error depends_on pipeline Chain",
    "leave it out, a task whose worker died is run again anyway": "acks_late "
    "task_acks_late reject_on_worker_lost task_reject_on_worker_lost ack_failure",
}


def _by_word(table: Mapping[str, str]) -> dict[str, str]:
    return {word: ours for ours, words in table.items() for word in words.split()}


_OURS = _by_word(_ELSEWHERE)
_INSTEAD = _by_word(_ATTRIBUTES)
_INSTEAD_OF_CALL = _by_word(_OF_A_CALL)
_INSTEAD_OF_RESULT = _by_word(_OF_A_RESULT)
_INSTEAD_OF_NAME = _by_word(_OF_THE_PACKAGE)
_WHY_ABSENT = _by_word(_ABSENT)


def our_option(name: str) -> tuple[str, str]:
    """Return our option of that meaning, and an example; two empty texts for none."""
    ours = _OURS.get(name, name)
    return (ours, _EXAMPLES[ours]) if ours in _EXAMPLES else ("", "")


def note_of(option: str) -> str:
    """Return what an example of the option needs to be told with it."""
    return _NOTES.get(option, "")


def absent(name: str) -> str:
    """Say why there is nothing of that meaning, empty when it is none of others'."""
    return _WHY_ABSENT.get(name, "")


def instead_of(attribute: str, task: str) -> str:
    """Return what to write instead of an attribute of others, empty for none."""
    return _INSTEAD.get(attribute, "").replace("{task}", task)


def instead_of_call(attribute: str) -> str:
    """Do as ``instead_of``, for what stands for a task and its arguments."""
    return _INSTEAD_OF_CALL.get(attribute, "")


def instead_of_result(attribute: str) -> str:
    """Do as ``instead_of``, for what ``enqueue()`` returns."""
    return _INSTEAD_OF_RESULT.get(attribute, "")


def instead_of_name(name: str) -> str:
    """Say what to write for a name that others' packages have, empty for none."""
    if why := absent(name):
        return f": {why}"
    ours = _INSTEAD_OF_NAME.get(name)
    return f"; write {ours}" if ours else ""


def missing(thing: object, name: str, ours: str) -> AttributeError:
    """Return the error about an attribute; ``ours`` says what to write, or nothing."""
    words = f"{type(thing).__name__!r} object has no attribute {name!r}"
    words += f"; write {ours}" if ours else ""
    return AttributeError(words, name=name, obj=thing)
