"""The gateway: an OpenAI-compatible HTTP API, answered by this machine or by the market.

It asks the facade alone (`call`, `embed`, `list_callable`); what an answer is, and who gives it, is decided
there.
"""
