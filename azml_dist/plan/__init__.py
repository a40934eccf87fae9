"""What a job means: its world, the context of every process, the request, and the findings.

Public names load on first use, so that importing one part of the plan does not import the others.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from azml_dist.plan.plan import LaunchPlan as LaunchPlan
    from azml_dist.plan.world import Place as Place
    from azml_dist.plan.world import ProcessContext as ProcessContext
    from azml_dist.plan.world import Service as Service
    from azml_dist.plan.world import World as World

__all__ = ["LaunchPlan", "Place", "ProcessContext", "Service", "World"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(
        import_module("azml_dist.plan.plan" if name == "LaunchPlan" else "azml_dist.plan.world"), name
    )
    return value
