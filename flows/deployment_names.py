"""Plugin of Prefect: a bare name of a deployment is one of `train-flow`, as in `prefect deployment run nightly`, or of
a flow that is called as itself.

Prefect itself wants <flow>/<deployment>, which works as well.
"""

import functools
import sys

from prefect.plugins import register_hook

from flows import ROOT

FLOWS = {"compare-flow": "compare-flow"}  # others are of train-flow


@register_hook
def setup_environment(*, ctx=None) -> None:
    (ROOT / ".state").mkdir(exist_ok=True)  # Prefect makes its home there, but not the folder around it.
    # Other commands need no names, and importing the client takes half a second.
    if "deployment" in sys.argv:
        from prefect.client.orchestration import PrefectClient

        PrefectClient.read_deployment_by_name = with_bare_names(PrefectClient.read_deployment_by_name)


def with_bare_names(read):
    @functools.wraps(read)
    async def read_deployment_by_name(self, name: str):
        return await read(self, name if "/" in name else f"{FLOWS.get(name, 'train-flow')}/{name}")

    return read_deployment_by_name
