"""Makes a session with one server, and uses it with the official Python client.

session.py SERVER TOOL ARGUMENTS
"""

import json
import os
import sys
import urllib.request

import anyio
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

BROKER = os.environ["MCP_BROKER_URL"]
TOKEN = os.environ["MCP_BROKER_TOKEN"]


def rest(method, path, body=None):
    """Asks the broker's REST interface."""
    request = urllib.request.Request(BROKER + path, method=method, data=json.dumps(body or {}).encode())
    request.add_header("authorization", f"Bearer {TOKEN}")
    request.add_header("content-type", "application/json")
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read() or b"null")


async def main():
    server, tool, arguments = sys.argv[1:4]
    # The answer comes when the server is up.
    session = rest("POST", "/v1/sessions?wait=ready", {"mcp": {server: {}}, "ttl": 600, "label": "example"})
    try:
        headers = {"authorization": f"Bearer {session['mcp_token']}"}
        async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
            async with Client(streamable_http_client(session["mcp_url"], http_client=http)) as client:
                # Tools are called by their provider's name and their own.
                for listed in (await client.list_tools()).tools:
                    if "__" in listed.name:
                        print(listed.name)
                result = await client.call_tool(f"{server}__{tool}", json.loads(arguments))
                print("\n".join(block.text for block in result.content if block.type == "text"))
    finally:
        rest("DELETE", f"/v1/sessions/{session['id']}")


anyio.run(main)
