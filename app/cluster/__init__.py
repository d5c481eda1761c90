"""The service on many machines, by Ray Serve: `deployments` are the parts, `pool` stands between the first two.

Needs the extra ``cluster``. ``python -m app.cluster`` tries it on this machine.
"""
