"""`resdeploy doctor`: the machine in, what is installed and what is missing out."""

from __future__ import annotations

from resdeploy.cli.output import Output


def doctor(out: Output) -> None:
    """Say what is installed, what is missing and which extra brings it."""
    from resdeploy.measure.doctor import diagnosis
    from resdeploy.report.listings import diagnosis_view

    fields = diagnosis().model_dump(mode="json")
    if out.as_json:
        out.document("doctor", fields)
    else:
        out.listing(diagnosis_view(fields))
