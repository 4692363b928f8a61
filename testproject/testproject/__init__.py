"""A small real site that runs its background tasks with django_jobs."""
