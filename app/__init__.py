"""The HTTP service in front of `model`: `create_app` in `app.main` puts it together, ``python -m app`` runs it."""
