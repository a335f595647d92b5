"""Clients of the REST interface, for threads and for asyncio."""

from serving.client.clients import AsyncClient, Client, Explanation, RefusedError

__all__ = ["AsyncClient", "Client", "Explanation", "RefusedError"]
