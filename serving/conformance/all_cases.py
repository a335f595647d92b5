"""All cases, in the order of the contract."""

from serving.conformance import batching, http, paths, replies, requests

CASES = [*paths.CASES, *http.CASES, *requests.CASES, *replies.CASES, *batching.CASES]
