"""The settings of a Django project whose tasks are not jobs."""

from tests.django import shop_settings

INSTALLED_APPS = shop_settings.INSTALLED_APPS
SECRET_KEY = shop_settings.SECRET_KEY
TASKS = {"default": shop_settings.TASKS["immediate"]}
