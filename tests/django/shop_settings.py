"""The settings of a Django project for tests; what differs comes from the environment, as in its workers."""

import os
from typing import Any

try:
    import django.tasks  # noqa: F401
except ImportError:
    INSTALLED_APPS = ["django_tasks"]
else:
    INSTALLED_APPS = []

SECRET_KEY = "only for tests"  # noqa: S105
TIME_ZONE = "UTC"
USE_TZ = True
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("SHOP_DATABASE", ":memory:")},
}
TASKS: dict[str, Any] = {
    "default": {
        "BACKEND": "gql_jobs.django.backend.JobsBackend",
        "QUEUES": ["default", "e-mails"],
        "OPTIONS": {"url": os.environ.get("SHOP_JOBS")},
    },
    "retrying": {
        "BACKEND": "gql_jobs.django.backend.JobsBackend",
        "OPTIONS": {"url": os.environ.get("SHOP_JOBS"), "max_retries": 1, "timeout": 20, "tags": ["shop"]},
    },
    "hurried": {
        "BACKEND": "gql_jobs.django.backend.JobsBackend",
        "OPTIONS": {"url": os.environ.get("SHOP_JOBS"), "timeout": 0.2},
    },
    "immediate": {
        "BACKEND": f"{'django.tasks' if not INSTALLED_APPS else 'django_tasks'}.backends.immediate.ImmediateBackend"
    },
    "dummy": {"BACKEND": f"{'django.tasks' if not INSTALLED_APPS else 'django_tasks'}.backends.dummy.DummyBackend"},
}
