"""stub"""


def render_html(answer: object, name: str | None = None) -> str:
    """stub"""
    return "<!doctype html><title>stub</title>"
