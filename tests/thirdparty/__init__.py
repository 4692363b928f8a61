"""An app that knows Django's own tasks and nothing of django_jobs."""
