// Makes a session with one server, and uses it with the official TypeScript client.
//
// session.ts SERVER TOOL ARGUMENTS
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const { MCP_BROKER_URL: broker, MCP_BROKER_TOKEN: administrator } = process.env;
const [server, tool, given] = process.argv.slice(2);

/** Asks the broker's REST interface. */
async function rest(method: string, path: string, body?: unknown): Promise<any> {
    const answer = await fetch(broker + path, {
        method,
        headers: { authorization: `Bearer ${administrator}`, "content-type": "application/json" },
        body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${answer.status}: ${text}`);
    return text ? JSON.parse(text) : undefined;
}

// The answer comes when the server is up.
const session = await rest("POST", "/v1/sessions?wait=ready", { mcp: { [server]: {} }, ttl: 600, label: "example" });
try {
    const client = new Client({ name: "session.ts", version: "1" });
    const headers = { authorization: `Bearer ${session.mcp_token}` };
    await client.connect(new StreamableHTTPClientTransport(new URL(session.mcp_url), { requestInit: { headers } }));
    // Tools are called by their provider's name and their own.
    const { tools } = await client.listTools();
    for (const { name } of tools) if (name.includes("__")) console.log(name);
    const result = await client.callTool({ name: `${server}__${tool}`, arguments: JSON.parse(given) });
    for (const block of result.content) if (block.type === "text") console.log(block.text);
    await client.close();
} finally {
    await rest("DELETE", `/v1/sessions/${session.id}`);
}
