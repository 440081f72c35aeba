//! What servers are called in scripts.

use crate::ids::ServerName;

/// A server, and the variable that it is in a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) variable: String,
    pub(super) server: ServerName,
}

/// Names for the servers of a script: identifiers, each another.
pub(super) fn named(servers: &[ServerName]) -> Vec<Named> {
    let mut named: Vec<Named> = Vec::new();
    for server in servers {
        let plain = variable(server);
        let mut variable = plain.clone();
        let mut number = 2;
        while named.iter().any(|other| other.variable == variable) {
            variable = format!("{plain}_{number}");
            number += 1;
        }
        named.push(Named { variable, server: server.clone() });
    }
    named
}

fn variable(server: &ServerName) -> String {
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

/// Names that a variable cannot have, that every script has, or that a script wants as they are.
const RESERVED: [&str; 78] = [
    "Array",
    "BigInt",
    "Boolean",
    "Date",
    "Error",
    "Infinity",
    "JSON",
    "Map",
    "Math",
    "NaN",
    "Number",
    "Object",
    "Promise",
    "Proxy",
    "Reflect",
    "RegExp",
    "Set",
    "String",
    "Symbol",
    "ToolError",
    "arguments",
    "async",
    "await",
    "break",
    "broker",
    "case",
    "catch",
    "class",
    "console",
    "const",
    "continue",
    "debugger",
    "declare",
    "default",
    "delete",
    "do",
    "else",
    "enum",
    "eval",
    "export",
    "extends",
    "false",
    "finally",
    "for",
    "function",
    "globalThis",
    "if",
    "implements",
    "import",
    "in",
    "instanceof",
    "interface",
    "let",
    "namespace",
    "new",
    "null",
    "of",
    "package",
    "private",
    "protected",
    "public",
    "return",
    "servers",
    "static",
    "super",
    "switch",
    "this",
    "throw",
    "true",
    "try",
    "type",
    "typeof",
    "undefined",
    "var",
    "void",
    "while",
    "with",
    "yield",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_has_a_variable_of_its_own() {
        let servers: Vec<ServerName> = ["git-hub", "git.hub", "7zip", "class", "io.x/y", "JSON"]
            .iter()
            .map(|name| name.parse().unwrap())
            .collect();
        let variables: Vec<String> = named(&servers).into_iter().map(|named| named.variable).collect();
        assert_eq!(variables, ["git_hub", "git_hub_2", "_7zip", "_class", "io_x_y", "_JSON"]);
    }
}
