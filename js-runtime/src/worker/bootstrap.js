// Runs before any script, and captures everything it needs: a script may change every builtin it can reach.
((core) => {
    "use strict";
    const { op_call, op_log } = core.ops;
    const { evalContext } = core;
    const { parse, stringify } = JSON;
    const { apply, ownKeys } = Reflect;
    const ArrayIsArray = Array.isArray;
    const ObjectCreate = Object.create;
    const ObjectHasOwn = Object.hasOwn;
    const ObjectFreeze = Object.freeze;
    const ObjectDefineProperty = Object.defineProperty;
    const NativeError = Error;
    const NativeProxy = Proxy;
    const NativePromise = Promise;
    const allSettled = Promise.allSettled;
    const push = Array.prototype.push;
    const pop = Array.prototype.pop;
    const at = Array.prototype.at;
    const map = Array.prototype.map;
    const join = Array.prototype.join;
    const exec = RegExp.prototype.exec;
    const bigintToString = BigInt.prototype.toString;
    const IDENTIFIER = /^[A-Za-z_$][A-Za-z0-9_$]*$/;
    const FILE = "file:///script.js";
    const PLACE = /script\.js:(\d+)(?::(\d+))?/;
    // What stands before the first line of a script in the function that is made of it.
    const LINES_BEFORE = 1;
    const DEPTH_MAX = 100;

    for (const name of ["Deno", "__bootstrap", "WebAssembly", "SharedArrayBuffer", "Atomics", "ShadowRealm", "gc",
        "performance", "console"]) {
        delete globalThis[name];
    }

    // As JSON, whatever it is: what JSON does not know becomes text, and what leads back to itself is cut.
    const toJson = (value) => {
        const above = [];
        const text = stringify(value, function (_key, inner) {
            while (above.length > 0 && apply(at, above, [-1]) !== this) apply(pop, above, []);
            switch (typeof inner) {
                case "bigint":
                    return apply(bigintToString, inner, []);
                case "function":
                    return "[function]";
                case "symbol":
                    return "[symbol]";
                case "object": {
                    if (inner === null) return null;
                    for (let index = 0; index < above.length; index++) if (above[index] === inner) return "[cycle]";
                    if (above.length > DEPTH_MAX) return "[deeper]";
                    apply(push, above, [inner]);
                    return inner;
                }
                default:
                    return inner;
            }
        });
        return text === undefined ? "null" : text;
    };

    const describe = (value) => {
        if (typeof value === "string") return value;
        if (value instanceof NativeError) return `${value.name}: ${value.message}`;
        try {
            return toJson(value);
        } catch {
            return "[what cannot be shown]";
        }
    };

    class ToolError extends NativeError {
        constructor(server, tool, message, schema) {
            super(message);
            this.name = "ToolError";
            this.server = server;
            this.tool = tool;
            if (schema !== undefined) this.schema = schema;
        }
    }

    const call = async (server, tool, args) => {
        const answer = parse(await op_call(server, tool, toJson(args === undefined ? {} : args)));
        if (ObjectHasOwn(answer, "Ok")) return answer.Ok;
        const { message, schema } = answer.Err;
        throw new ToolError(server, tool, message, schema);
    };

    // Functions for a server's tools, by whatever name.
    const api = (server) => new NativeProxy(ObjectFreeze(ObjectCreate(null)), {
        get: (_target, tool) => (typeof tool === "string" && tool !== "then" ? (args) => call(server, tool, args) : undefined),
    });

    const broker = ObjectFreeze({
        __proto__: null,
        search: (query) => call("broker", "search", { query }),
        describe: (name) => call("broker", "describe", { name }),
        call: (server, tool, args) => call(server, tool, args),
        settle: async (promises) => apply(map, await apply(allSettled, NativePromise, [promises]), [
            (slot) => slot.status === "fulfilled"
                ? { ok: true, value: slot.value }
                : { ok: false, error: describe(slot.reason) },
        ]),
    });

    const log = (...values) => op_log(apply(join, apply(map, values, [describe]), [" "]));
    const console = ObjectFreeze({ __proto__: null, log, info: log, warn: log, error: log, debug: log });
    ObjectDefineProperty(globalThis, "console", { value: console, writable: true, configurable: true });

    const failure = (error) => {
        if (!(error instanceof NativeError)) return { name: "Error", message: `thrown: ${describe(error)}` };
        const stack = typeof error.stack === "string" ? error.stack : undefined;
        const place = stack === undefined ? null : apply(exec, PLACE, [stack]);
        const line = place === null ? undefined : +place[1] - LINES_BEFORE;
        return {
            name: `${error.name}`,
            message: `${error.message}`,
            line: line > 0 ? line : undefined,
            column: place === null || place[2] === undefined ? undefined : +place[2],
            stack,
        };
    };

    return async (text) => {
        const { source, servers, wrong: unreadable } = parse(text);
        const names = ["broker", "ToolError", "servers"];
        const byName = ObjectCreate(null);
        const values = [broker, ToolError, byName];
        for (const [server] of servers) {
            byName[server] = api(server);
            if (apply(exec, IDENTIFIER, [server]) !== null) {
                apply(push, names, [server]);
                apply(push, values, [byName[server]]);
            }
        }
        try {
            const [body, wrong] = evalContext(`(async function (${apply(join, names, [", "])}) {\n${source}\n})`, FILE);
            // Whoever read the types says better what is wrong, where the engine does not take it either.
            if (wrong) return stringify({ Err: unreadable === null ? failure(wrong.thrown) : unreadable });
            return `{"Ok":${toJson(await body(...values))}}`;
        } catch (error) {
            try {
                return stringify({ Err: failure(error) });
            } catch {
                return '{"Err":{"name":"Error","message":"thrown: what cannot be shown"}}';
            }
        }
    };
})(Deno.core);
