// What every client does: look, find, add, wait to be told, call, call by name, remove. What it saw is printed as JSON.
//
//   walk-ts-….mjs TARGET SERVER TOOL ARGUMENTS
//
// TARGET is JSON: {"url": …, "token": …} or {"command": [program, argument…]}.
const WITHIN_MS = 60_000;

export async function walk(connect) {
    const [target, server, tool, toolArguments] = process.argv.slice(2);
    const said = JSON.parse(target);
    let changed;
    const told = new Promise((resolve) => (changed = resolve));
    const { client, revision } = await connect(
        said.url
            ? { url: said.url, headers: { authorization: `Bearer ${said.token}` } }
            : { command: { command: said.command[0], args: said.command.slice(1) } },
        () => changed(),
    );
    const names = async () => (await client.listTools()).tools.map((tool) => tool.name).sort();
    const call = async (name, args) => {
        const result = await client.callTool({ name, arguments: args });
        const text = result.content.filter((block) => block.type === "text").map((block) => block.text).join("\n");
        if (result.isError) throw new Error(`${name}: ${text}`);
        return { text, data: result.structuredContent };
    };

    const saw = { revision, before: await names() };
    saw.found = (await call("mcp-find", { query: server })).data.servers.map((found) => found.name);
    const added = await call("mcp-add", { name: server });
    const handle = added.data.session ? { session: added.data.session } : {};
    saw.handle = Boolean(added.data.session);
    const exposed = `${server}__${tool}`;
    if (!saw.handle) {
        const late = new Promise((_, reject) => setTimeout(reject, WITHIN_MS, new Error("not told of new tools")).unref());
        await Promise.race([told, late]);
        saw.added = (await names()).filter((name) => !saw.before.includes(name));
        saw.called = (await call(exposed, JSON.parse(toolArguments))).text;
    }
    saw.executed = (await call("mcp-exec", { name: exposed, arguments: JSON.parse(toolArguments), ...handle })).text;
    await call("mcp-remove", { name: server, ...handle });
    saw.after = await names();
    await client.close();
    console.log(JSON.stringify(saw));
}
