#!/bin/sh
# Makes a session with one server, calls one of its tools over MCP, and ends the session.
#
# session.sh SERVER TOOL ARGUMENTS
set -eu

server=$1 tool=$2 arguments=$3

field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

rest() {
    curl --silent --show-error --fail-with-body --header "Authorization: Bearer $MCP_BROKER_TOKEN" "$@"
}

# The answer comes when the server is up.
session=$(rest "$MCP_BROKER_URL/v1/sessions?wait=ready" --json "{\"mcp\": {\"$server\": {}}, \"ttl\": 600}")
id=$(echo "$session" | field id)
url=$(echo "$session" | field mcp_url)
token=$(echo "$session" | field mcp_token)
trap 'rest --request DELETE "$MCP_BROKER_URL/v1/sessions/$id"' EXIT

# One request is all it takes in revision 2026-07-28 of MCP: nothing is set up before it.
mcp() {
    curl --silent --show-error --fail-with-body "$url" \
        --header "Authorization: Bearer $token" \
        --header 'Accept: application/json, text/event-stream' \
        --header 'MCP-Protocol-Version: 2026-07-28' \
        --header "Mcp-Method: $1" \
        ${3:+--header "Mcp-Name: $3"} \
        --json "$2"
}
meta='"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "session.sh", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {}}'

mcp tools/list "{\"jsonrpc\": \"2.0\", \"id\": 1, \"method\": \"tools/list\", \"params\": {$meta}}" ""
echo
mcp tools/call "{\"jsonrpc\": \"2.0\", \"id\": 2, \"method\": \"tools/call\", \"params\": {
    \"name\": \"${server}__$tool\", \"arguments\": $arguments, $meta}}" "${server}__$tool"
echo
