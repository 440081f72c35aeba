"""Has an agent of the OpenAI Agents SDK answer with the tools of a session.

agent.py SERVER QUESTION
"""

import asyncio
import json
import os
import sys
import urllib.request

from agents import Agent, Runner, set_default_openai_api, set_tracing_disabled
from agents.mcp import MCPServerStreamableHttp

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
    server, question = sys.argv[1:3]
    # What every model speaks that is not OpenAI's own.
    set_default_openai_api("chat_completions")
    set_tracing_disabled(True)
    session = rest("POST", "/v1/sessions?wait=ready", {"mcp": {server: {}}, "ttl": 600, "label": "example"})
    try:
        params = {"url": session["mcp_url"], "headers": {"authorization": f"Bearer {session['mcp_token']}"}}
        async with MCPServerStreamableHttp(params=params, name=server, cache_tools_list=True) as tools:
            agent = Agent(
                name="Assistant",
                instructions="Answer with the help of your tools.",
                model=os.environ.get("MODEL", "gpt-5-mini"),
                mcp_servers=[tools],
            )
            result = await Runner.run(agent, question)
            print(result.final_output)
    finally:
        rest("DELETE", f"/v1/sessions/{session['id']}")


asyncio.run(main())
