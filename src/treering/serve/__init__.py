"""The faces that answer over a connection: HTTP, the OpenAI-compatible API, MCP, and the page for people."""
