// The walk of walk.mjs with the official TypeScript SDK v2. ERA=legacy or modern says which era it is to speak.
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import { walk } from "./walk.mjs";

const mode = process.env.ERA === "legacy" ? "legacy" : { pin: "2026-07-28" };

await walk(async (target, onToolsChanged) => {
    const client = new Client(
        { name: "walk-ts-v2", version: "1" },
        { versionNegotiation: { mode }, listChanged: { tools: { autoRefresh: false, onChanged: onToolsChanged } } },
    );
    const transport = target.url
        ? new StreamableHTTPClientTransport(new URL(target.url), { requestInit: { headers: target.headers } })
        : new StdioClientTransport({ ...target.command, stderr: "inherit" });
    await client.connect(transport);
    return { client, revision: client.getNegotiatedProtocolVersion?.() ?? "unknown" };
});
