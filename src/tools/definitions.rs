//! The broker's own tools, as clients see them.
//!
//! Their schemas are written out, not derived, and stay within what the strictest clients accept: a plain object at the
//! top, no union there, every property typed.

use std::sync::Arc;

use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde_json::{Value, json};

/// One of the broker's own tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManagementTool {
    Find,
    Add,
    ConfigSet,
    Remove,
    Exec,
    List,
    CodeMode,
    CreateProfile,
    ActivateProfile,
}

impl ManagementTool {
    pub const ALL: [Self; 9] = [
        Self::Find,
        Self::Add,
        Self::ConfigSet,
        Self::Remove,
        Self::Exec,
        Self::List,
        Self::CodeMode,
        Self::CreateProfile,
        Self::ActivateProfile,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Find => "mcp-find",
            Self::Add => "mcp-add",
            Self::ConfigSet => "mcp-config-set",
            Self::Remove => "mcp-remove",
            Self::Exec => "mcp-exec",
            Self::List => "mcp-list",
            Self::CodeMode => "code-mode",
            Self::CreateProfile => "mcp-create-profile",
            Self::ActivateProfile => "mcp-activate-profile",
        }
    }

    /// The tool of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tool| tool.name() == name)
    }

    /// How it is listed. `with_handle`: for clients whose session is an argument.
    #[must_use]
    pub fn definition(self, with_handle: bool) -> Tool {
        let mut properties = self.properties();
        if with_handle {
            properties["session"] = json!({"type": "string", "description": self.session_description()});
        }
        let required: Vec<&str> = self.required().to_vec();
        let schema = json!({"type": "object", "properties": properties, "required": required});
        let mut tool = Tool::new(self.name(), self.description(), object(schema))
            .with_title(self.title())
            .with_annotations(self.annotations());
        if let Some(output) = self.output_schema() {
            tool = tool.with_raw_output_schema(object(output));
        }
        tool
    }

    fn title(self) -> &'static str {
        match self {
            Self::Find => "Find servers",
            Self::Add => "Add a server",
            Self::ConfigSet => "Configure a server",
            Self::Remove => "Remove a server",
            Self::Exec => "Call a tool",
            Self::List => "List servers",
            Self::CodeMode => "Make a tool that runs scripts",
            Self::CreateProfile => "Save servers as a profile",
            Self::ActivateProfile => "Add a profile's servers",
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::Find => {
                "Searches the catalog for MCP servers that can do something you have no tool for. Describe the task or \
                 name the product. Follow up with mcp-add."
            }
            Self::Add => {
                "Adds an MCP server from the catalog to this session, starts it, and returns its tools. If your client \
                 does not show the new tools, call them with mcp-exec. On failure nothing is added and the answer says \
                 what is missing."
            }
            Self::ConfigSet => {
                "Sets the config of an MCP server for this session, before or after adding it. A running server is \
                 restarted with it. Keys that are secrets are kept encrypted and never shown."
            }
            Self::Remove => "Removes an MCP server from this session and stops it. Its config is kept.",
            Self::Exec => {
                "Calls a tool of any server in this session, listed or not: by its full name (server__tool), or by the \
                 tool's own name if only one server has it."
            }
            Self::List => {
                "Lists the MCP servers of this session, their state, and the names of their tools; with `history`, also what was \
                 done."
            }
            Self::CodeMode => {
                "Makes the tool code-mode-<name>, which runs JavaScript that calls the tools of the named servers: for \
                 many calls, calls that depend on each other, or large results. With `script` it also runs that at once."
            }
            Self::CreateProfile => {
                "Saves the MCP servers of this session, with their config and choice of tools, as a named profile for later \
                 sessions. Secrets are not saved."
            }
            Self::ActivateProfile => {
                "Adds every MCP server of a profile to this session. Everything is checked first: either all are added or \
                 none, and the answer names every problem."
            }
        }
    }

    fn properties(self) -> Value {
        match self {
            Self::Find => json!({
                "query": {"type": "string", "description": "What you want to do, or a product's name"},
                "limit": {"type": "integer", "description": "How many servers to return, 1 to 50", "minimum": 1, "maximum": 50, "default": 10},
                "category": {"type": "string", "description": "Only servers of this category or with this tag"},
                "source": {"type": "string", "description": "Only servers from this catalog"},
                "runnable": {"type": "boolean", "description": "Only servers that this machine can run", "default": false},
                "no_secrets": {"type": "boolean", "description": "Only servers that need no secret", "default": false}
            }),
            Self::Add => json!({
                "name": {"type": "string", "description": "The server's name in the catalog"},
                "activate": {
                    "anyOf": [{"type": "boolean"}, {"type": "array", "items": {"type": "string"}}],
                    "description": "Which tools to list: true for all, false for none, or their names. All can be called with mcp-exec",
                    "default": true
                },
                "config": {"type": "object", "description": "The server's config, as mcp-config-set takes it", "properties": {}, "additionalProperties": true},
                "detail": {"type": "string", "enum": ["brief", "full"], "description": "full returns each tool's whole input schema", "default": "brief"}
            }),
            Self::ConfigSet => json!({
                "server": {"type": "string", "description": "The server's name in the catalog"},
                "config": {"type": "object", "description": "The whole config; it replaces the earlier one", "properties": {}, "additionalProperties": true}
            }),
            Self::Remove => json!({"name": {"type": "string", "description": "The server's name"}}),
            Self::Exec => json!({
                "name": {"type": "string", "description": "The tool to call"},
                "arguments": {"type": "object", "description": "Its arguments", "properties": {}, "additionalProperties": true}
            }),
            Self::List => json!({
                "history": {"type": "integer", "description": "How many of this session's last calls to return too", "minimum": 1, "maximum": 100}
            }),
            Self::CodeMode => json!({
                "servers": {"type": "array", "items": {"type": "string"}, "description": "Servers of this session that scripts may call"},
                "name": {"type": "string", "description": "What the tool is called, after code-mode-"},
                "script": {"type": "string", "description": "The body of an async JavaScript function, to be run at once"}
            }),
            Self::CreateProfile => json!({
                "name": {"type": "string", "description": "A name that no profile has yet: letters, digits, . _ -"},
                "description": {"type": "string", "description": "What it is for"}
            }),
            Self::ActivateProfile => json!({"name": {"type": "string", "description": "The profile's name"}}),
        }
    }

    fn required(self) -> &'static [&'static str] {
        match self {
            Self::Find => &["query"],
            Self::Add | Self::Remove | Self::Exec | Self::CreateProfile | Self::ActivateProfile => &["name"],
            Self::ConfigSet => &["server", "config"],
            Self::List => &[],
            Self::CodeMode => &["servers", "name"],
        }
    }

    fn session_description(self) -> &'static str {
        match self {
            Self::Add | Self::ConfigSet | Self::ActivateProfile => {
                "The session, as the first mcp-add returned it; leave it out to begin one"
            }
            _ => "The session, as mcp-add returned it",
        }
    }

    fn annotations(self) -> ToolAnnotations {
        let annotations = ToolAnnotations::new();
        match self {
            Self::Find | Self::List => annotations.read_only(true).open_world(false),
            Self::Add | Self::ConfigSet | Self::ActivateProfile => {
                annotations.read_only(false).destructive(false).idempotent(true).open_world(true)
            }
            Self::Remove => annotations.read_only(false).destructive(true).idempotent(true).open_world(false),
            Self::CreateProfile => annotations.read_only(false).destructive(false).idempotent(false).open_world(false),
            Self::Exec | Self::CodeMode => annotations.read_only(false).open_world(true),
        }
    }

    /// `mcp-exec` answers with what the tool it calls answers.
    fn output_schema(self) -> Option<Value> {
        let text = json!({"type": "string"});
        let texts = json!({"type": "array", "items": {"type": "string"}});
        Some(match self {
            // The second answers with what the script returns, if there is one.
            Self::Exec | Self::CodeMode => return None,
            Self::Find => json!({
                "type": "object",
                "properties": {
                    "servers": {"type": "array", "items": {
                        "type": "object",
                        "properties": {
                            "name": text, "title": text, "description": text, "tools": texts, "words": texts, "needs": texts,
                            "on": {"type": "boolean"}, "source": text, "trust": text
                        },
                        "required": ["name", "description"]
                    }},
                    "more": {"type": "integer", "description": "Further matches that were not returned"},
                    "unlikely": {"type": "boolean", "description": "Whether even the first is hardly what was asked for"}
                },
                "required": ["servers"]
            }),
            Self::Add => json!({
                "type": "object",
                "properties": {
                    "server": text,
                    "state": {"type": "string", "enum": ["ready", "starting", "not added"]},
                    "session": text,
                    "tools": {"type": "array", "items": {
                        "type": "object",
                        "properties": {
                            "name": text, "signature": text, "description": text,
                            "inputSchema": {"type": "object"}, "outputSchema": {"type": "object"},
                            "listed": {"type": "boolean"}
                        },
                        "required": ["name"]
                    }},
                    "prompts": texts,
                    "resources": {"type": "integer"},
                    "instructions": text,
                    "needs": {"type": "object"},
                    "unknown_config": texts
                },
                "required": ["server", "state"]
            }),
            Self::ConfigSet => json!({
                "type": "object",
                "properties": {
                    "server": text, "config": {"type": "object"}, "secrets": texts, "restarted": {"type": "boolean"},
                    "session": text, "problems": texts, "unknown_config": texts
                },
                "required": ["server"]
            }),
            Self::CreateProfile => json!({
                "type": "object",
                "properties": {
                    "profile": text, "servers": texts,
                    "left_out": {"type": "array", "description": "What was not saved, and why", "items": {"type": "string"}}
                },
                "required": ["profile", "servers"]
            }),
            Self::ActivateProfile => json!({
                "type": "object",
                "properties": {
                    "profile": text,
                    "state": {"type": "string", "enum": ["active", "not activated"]},
                    "session": text,
                    "servers": {"type": "array", "items": {
                        "type": "object",
                        "properties": {
                            "name": text, "state": {"type": "string", "enum": ["ready", "starting", "on already"]},
                            "tools": texts
                        },
                        "required": ["name", "state"]
                    }},
                    "problems": {"type": "array", "items": {
                        "type": "object",
                        "properties": {"server": text, "problem": text},
                        "required": ["problem"]
                    }}
                },
                "required": ["profile", "state"]
            }),
            Self::Remove => json!({
                "type": "object",
                "properties": {"server": text, "removed": {"type": "boolean"}},
                "required": ["server", "removed"]
            }),
            Self::List => json!({
                "type": "object",
                "properties": {
                    "session": text,
                    "servers": {"type": "array", "items": {
                        "type": "object",
                        "properties": {"name": text, "state": text, "tools": texts, "hidden_tools": texts, "fixed": {"type": "boolean"}, "commit": text},
                        "required": ["name", "state", "tools"]
                    }},
                    "history": {"type": "array", "items": {
                        "type": "object",
                        "properties": {
                            "at": text, "kind": text, "name": text, "server": text, "status": text, "arguments": text,
                            "error": text, "ms": {"type": "integer"}
                        },
                        "required": ["at", "kind", "name", "status"]
                    }}
                },
                "required": ["servers"]
            }),
        })
    }
}

pub(super) fn object(value: Value) -> Arc<JsonObject> {
    match value {
        Value::Object(fields) => Arc::new(fields),
        _ => Arc::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What OpenAI, Anthropic and Gemini all accept.
    fn assert_strict(schema: &JsonObject, name: &str) {
        assert_eq!(schema.get("type"), Some(&json!("object")), "{name}");
        for union in ["anyOf", "oneOf", "allOf", "enum", "not", "$ref"] {
            assert!(!schema.contains_key(union), "{name} has {union} at the top");
        }
        for (property, definition) in schema["properties"].as_object().unwrap() {
            let typed = definition.get("type").is_some_and(Value::is_string) || definition.get("anyOf").is_some();
            assert!(typed, "{name}.{property}");
            if definition["type"] == "array" {
                assert!(definition.get("items").is_some(), "{name}.{property}");
            }
            if definition["type"] == "object" && property != "needs" {
                assert!(
                    definition.get("properties").is_some() || schema.get("required").is_some(),
                    "{name}.{property}"
                );
            }
        }
    }

    #[test]
    fn every_schema_passes_the_strictest_rules() {
        for tool in ManagementTool::ALL {
            for with_handle in [false, true] {
                let definition = tool.definition(with_handle);
                assert_strict(&definition.input_schema, tool.name());
                if let Some(output) = &definition.output_schema {
                    assert_strict(output, tool.name());
                }
                assert!(definition.name.len() <= 64);
            }
        }
    }

    #[test]
    fn names_read_back() {
        for tool in ManagementTool::ALL {
            assert_eq!(ManagementTool::named(tool.name()), Some(tool));
        }
        assert_eq!(ManagementTool::named("mcp-none"), None);
    }
}
