// The walk of walk.mjs with the official TypeScript SDK v1, which knows revisions up to 2025-11-25.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ToolListChangedNotificationSchema } from "@modelcontextprotocol/sdk/types.js";
import { walk } from "./walk.mjs";

await walk(async (target, onToolsChanged) => {
    const client = new Client({ name: "walk-ts-v1", version: "1" });
    client.setNotificationHandler(ToolListChangedNotificationSchema, onToolsChanged);
    const transport = target.url
        ? new StreamableHTTPClientTransport(new URL(target.url), { requestInit: { headers: target.headers } })
        : new StdioClientTransport({ ...target.command, stderr: "inherit" });
    await client.connect(transport);
    return { client, revision: transport.protocolVersion ?? "legacy" };
});
