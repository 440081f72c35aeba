//! What a script may call, as TypeScript would declare it.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::{
    ids::ServerName,
    session::menu::{Menu, MenuTool},
    tools::signature::{signature, type_of_schema},
};

/// Declarations that would be longer become one line for each tool.
const DECLARATIONS_BYTES_MAX: usize = 8 << 10;

const DESCRIPTION_CHARACTERS_MAX: usize = 160;

/// What a server is called in a script.
pub(super) fn variable(server: &ServerName) -> String {
    let mut name: String = server
        .as_str()
        .chars()
        .map(|character| if character.is_ascii_alphanumeric() || character == '_' { character } else { '_' })
        .collect();
    if name.starts_with(|character: char| character.is_ascii_digit()) || RESERVED.contains(&name.as_str()) {
        name.insert(0, '_');
    }
    name
}

/// Names that a variable cannot have, or has in every script.
const RESERVED: [&str; 14] = [
    "await",
    "broker",
    "console",
    "default",
    "delete",
    "function",
    "import",
    "new",
    "return",
    "servers",
    "this",
    "ToolError",
    "var",
    "with",
];

pub(super) fn tools_of<'a>(menu: &'a Menu, server: &'a ServerName) -> impl Iterator<Item = &'a MenuTool> {
    menu.tools.iter().filter(move |tool| tool.server == *server)
}

pub(super) fn tool_names(menu: &Menu, server: &ServerName) -> Vec<String> {
    tools_of(menu, server).map(|tool| tool.tool.name.to_string()).collect()
}

/// Declarations of every tool of `servers`, grouped by server.
pub(super) fn declarations(menu: &Menu, servers: &[ServerName]) -> String {
    let whole = written(menu, servers, declaration);
    if whole.len() <= DECLARATIONS_BYTES_MAX {
        return whole;
    }
    let mut brief = written(menu, servers, |tool| format!("  {};", signature(&member(tool), &tool.tool.input_schema)));
    if brief.len() > DECLARATIONS_BYTES_MAX {
        brief.truncate(brief.floor_char_boundary(DECLARATIONS_BYTES_MAX));
        brief.push_str("…\n// and more: ask broker.search");
    }
    brief
}

fn written(menu: &Menu, servers: &[ServerName], tool: impl Fn(&MenuTool) -> String) -> String {
    let mut text = String::new();
    for server in servers {
        let _ = writeln!(text, "declare const {}: {{", variable(server));
        for line in tools_of(menu, server).map(&tool) {
            let _ = writeln!(text, "{line}");
        }
        text.push_str("};\n");
    }
    text
}

/// One tool with its description and types.
pub(super) fn declaration(tool: &MenuTool) -> String {
    let description: String =
        tool.tool.description.as_deref().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    let description: String = description.replace("*/", "* /").chars().take(DESCRIPTION_CHARACTERS_MAX).collect();
    let arguments = type_of_schema(&Value::Object(tool.tool.input_schema.as_ref().clone()));
    let result = tool
        .tool
        .output_schema
        .as_ref()
        .map_or_else(|| "any".to_owned(), |schema| type_of_schema(&Value::Object(schema.as_ref().clone())));
    let arguments = if arguments == "object" { "{}".to_owned() } else { arguments };
    format!("  /** {description} */\n  {}(args: {arguments}): Promise<{result}>;", member(tool))
}

/// A tool's name as a member: quoted unless it is an identifier.
fn member(tool: &MenuTool) -> String {
    let name = tool.tool.name.as_ref();
    let starts_well = name.starts_with(|character: char| character.is_ascii_alphabetic() || character == '_');
    let plain = starts_well && name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_');
    if plain { name.to_owned() } else { Value::String(name.to_owned()).to_string() }
}

/// What `broker.search` answers: the tools that have most of the words.
pub(super) fn search(menu: &Menu, servers: &[ServerName], query: &str) -> Value {
    const HITS_MAX: usize = 10;
    let words: Vec<String> = query.to_lowercase().split_whitespace().map(str::to_owned).collect();
    let mut hits: Vec<(usize, &ServerName, &MenuTool)> = servers
        .iter()
        .flat_map(|server| tools_of(menu, server).map(move |tool| (server, tool)))
        .map(|(server, tool)| {
            let text =
                format!("{} {}", tool.tool.name, tool.tool.description.as_deref().unwrap_or_default()).to_lowercase();
            (words.iter().filter(|word| text.contains(word.as_str())).count(), server, tool)
        })
        .filter(|(found, ..)| *found > 0)
        .collect();
    hits.sort_by_key(|(found, ..)| std::cmp::Reverse(*found));
    let shown = hits.into_iter().take(HITS_MAX).map(|(_, server, tool)| {
        json!({
            "tool": format!("{}.{}", variable(server), tool.tool.name),
            "signature": signature(&tool.tool.name, &tool.tool.input_schema),
            "description": tool.tool.description,
        })
    });
    Value::Array(shown.collect())
}

/// What `broker.describe` answers.
pub(super) fn describe(menu: &Menu, servers: &[ServerName], name: &str) -> Option<Value> {
    let (server, tool) = name.split_once('.')?;
    let server = servers.iter().find(|known| variable(known) == server || known.as_str() == server)?;
    let found = tools_of(menu, server).find(|known| known.tool.name == tool)?;
    Some(json!({
        "declaration": declaration(found),
        "inputSchema": found.tool.input_schema,
        "outputSchema": found.tool.output_schema,
    }))
}
