"""The walk of walk.mjs with the official Python SDK, v1 or v2, whichever this Python has.

walk.py TARGET SERVER TOOL ARGUMENTS, with ERA=legacy or modern for v2.
"""

import json
import os
import sys
from contextlib import AsyncExitStack

import anyio
import mcp
from mcp import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

WITHIN_SECONDS = 60
V2 = hasattr(mcp, "Client")


async def transport_of(stack, target):
    """What the client connects through: streams (v1), or what v2's client takes."""
    if "url" in target:
        if V2:
            import httpx2 as httpx
        else:
            import httpx
        headers = {"authorization": f"Bearer {target['token']}"}
        http = httpx.AsyncClient(headers=headers, timeout=httpx.Timeout(30, read=300))
        return streamable_http_client(target["url"], http_client=await stack.enter_async_context(http))
    program, *arguments = target["command"]
    parameters = StdioServerParameters(command=program, args=arguments)
    return parameters if V2 else mcp.stdio_client(parameters)


async def connect(stack, target, on_message):
    transport = await transport_of(stack, target)
    if V2:
        mode = "legacy" if os.environ.get("ERA") == "legacy" else "2026-07-28"
        client = await stack.enter_async_context(mcp.Client(transport, mode=mode, message_handler=on_message, cache=None))
        return client, client.protocol_version
    read, write, *_ = await stack.enter_async_context(transport)
    client = await stack.enter_async_context(mcp.ClientSession(read, write, message_handler=on_message))
    return client, str((await client.initialize()).protocolVersion)


async def main():
    target, server, tool, arguments = sys.argv[1:5]
    target, arguments = json.loads(target), json.loads(arguments)
    told = anyio.Event()

    async def on_message(message):
        method = getattr(getattr(message, "root", message), "method", "")
        if method == "notifications/tools/list_changed":
            told.set()

    async with AsyncExitStack() as stack:
        client, revision = await connect(stack, target, on_message)

        async def names():
            return sorted(tool.name for tool in (await client.list_tools()).tools)

        async def call(name, given):
            result = await client.call_tool(name, given)
            text = "\n".join(block.text for block in result.content if block.type == "text")
            data = result.structured_content if V2 else result.structuredContent
            if result.is_error if V2 else result.isError:
                raise RuntimeError(f"{name}: {text}")
            return text, data

        async def rest():
            saw = {"revision": revision, "before": await names()}
            saw["found"] = [found["name"] for found in (await call("mcp-find", {"query": server}))[1]["servers"]]
            added = (await call("mcp-add", {"name": server}))[1]
            handle = {"session": added["session"]} if added.get("session") else {}
            saw["handle"] = bool(handle)
            exposed = f"{server}__{tool}"
            if not handle:
                with anyio.fail_after(WITHIN_SECONDS):
                    await told.wait()
                saw["added"] = [name for name in await names() if name not in saw["before"]]
                saw["called"] = (await call(exposed, arguments))[0]
            saw["executed"] = (await call("mcp-exec", {"name": exposed, "arguments": arguments, **handle}))[0]
            await call("mcp-remove", {"name": server, **handle})
            saw["after"] = await names()
            return saw

        if V2 and os.environ.get("ERA") != "legacy":
            async with client.listen(tools_list_changed=True) as events:
                async def follow():
                    async for _ in events:
                        told.set()

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(follow)
                    saw = await rest()
                    tasks.cancel_scope.cancel()
        else:
            saw = await rest()
        print(json.dumps(saw))


anyio.run(main)
