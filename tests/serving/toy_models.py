"""The toy SavedModels of the tests are those that the contract's cases ask."""

from serving.conformance.models import HalfPlus, export

__all__ = ["HalfPlus", "export"]
