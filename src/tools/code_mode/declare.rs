//! What a script may call, as TypeScript would declare it.
//!
//! Everything, with what the schemas say of each member, as long as that is short enough to be read with every list of
//! tools; then types alone; then a line for each tool, and `broker.search` for what does not fit.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::{Value, json};

use super::{
    learning::Learned,
    names::Named,
    types::{key, remark, written},
};
use crate::{
    session::menu::{Menu, MenuTool},
    tools::signature::signature,
};

const DESCRIPTION_CHARACTERS_MAX: usize = 200;

/// What a script may call, and what is known of it.
pub(super) struct Callable<'a> {
    pub(super) menu: &'a Menu,
    pub(super) servers: &'a [Named],
    pub(super) learned: &'a Learned,
}

/// How much is written of a tool.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Detail {
    Docs,
    Types,
}

impl Callable<'_> {
    pub(super) fn tools_of<'a>(&'a self, server: &'a Named) -> impl Iterator<Item = &'a MenuTool> {
        tools_of(self.menu, server)
    }

    /// Declarations of every tool, grouped by server, in at most about `bytes_max`.
    pub(super) fn declarations(&self, bytes_max: usize) -> String {
        for detail in [Detail::Docs, Detail::Types] {
            let text = self.whole(detail);
            if text.len() <= bytes_max {
                return text;
            }
        }
        self.brief(bytes_max)
    }

    fn whole(&self, detail: Detail) -> String {
        let mut named = BTreeMap::new();
        let mut text = String::new();
        for server in self.servers {
            let _ = writeln!(text, "declare const {}: {{", server.variable);
            for tool in self.tools_of(server) {
                let _ = writeln!(text, "{}", self.member(server, tool, detail, &mut named));
            }
            text.push_str("};\n");
        }
        with_named(&named, &text)
    }

    /// A line for each tool, each server with its share of the room.
    fn brief(&self, bytes_max: usize) -> String {
        let share = bytes_max / self.servers.len().max(1);
        let mut text = String::from(
            "// Signatures only: await broker.describe(\"server.tool\") gives a tool's types, await broker.search(\"words\") finds tools.\n",
        );
        for server in self.servers {
            let _ = writeln!(text, "declare const {}: {{", server.variable);
            let (mut room, mut left_out) = (share, 0);
            for tool in self.tools_of(server) {
                let line = format!("  {};\n", signature(&key(&tool.tool.name), &tool.tool.input_schema));
                if left_out > 0 || line.len() > room {
                    left_out += 1;
                    continue;
                }
                room -= line.len();
                text.push_str(&line);
            }
            if left_out > 0 {
                let _ = writeln!(text, "  // and {left_out} more: ask broker.search");
            }
            text.push_str("};\n");
        }
        text
    }

    fn member(&self, server: &Named, tool: &MenuTool, detail: Detail, named: &mut BTreeMap<String, String>) -> String {
        let with_docs = detail == Detail::Docs;
        let name = format!("{}_{}", server.variable, tool.tool.name);
        let arguments = written(&tool.tool.input_schema, &name, with_docs);
        named.extend(arguments.named);
        let result = match &tool.tool.output_schema {
            Some(schema) => {
                let result = written(schema, &format!("{name}_result"), with_docs);
                named.extend(result.named);
                result.text
            }
            None => self
                .learned
                .get(&(server.server.clone(), tool.tool.name.to_string()))
                .cloned()
                .unwrap_or_else(|| "any".to_owned()),
        };
        let arguments = match arguments.text.as_str() {
            "object" | "any" | "{}" => "args?: {}".to_owned(),
            // All may be left out, so the whole may be.
            text if !has_required(tool) => format!("args?: {text}"),
            text => format!("args: {text}"),
        };
        let description = tool.tool.description.as_deref().unwrap_or_default();
        let doc = match remark(description, DESCRIPTION_CHARACTERS_MAX) {
            text if text.is_empty() => String::new(),
            text => format!("  /** {text} */\n"),
        };
        format!("{doc}  {}({arguments}): Promise<{result}>;", key(&tool.tool.name))
    }

    /// What `broker.search` answers: the tools that have most of the words.
    pub(super) fn search(&self, query: &str) -> Value {
        const HITS_MAX: usize = 10;
        let words: Vec<String> = query.to_lowercase().split_whitespace().map(str::to_owned).collect();
        let mut hits: Vec<(usize, &Named, &MenuTool)> = self
            .servers
            .iter()
            .flat_map(|server| self.tools_of(server).map(move |tool| (server, tool)))
            .map(|(server, tool)| {
                let name = format!("{} {}", server.server, tool.tool.name).to_lowercase();
                let text = tool.tool.description.as_deref().unwrap_or_default().to_lowercase();
                // A word in the name says more than one in the description.
                let found = |word: &String| 2 * usize::from(name.contains(word)) + usize::from(text.contains(word));
                (words.iter().map(found).sum(), server, tool)
            })
            .filter(|(found, ..)| *found > 0)
            .collect();
        hits.sort_by_key(|(found, ..)| std::cmp::Reverse(*found));
        let shown = hits.into_iter().take(HITS_MAX).map(|(_, server, tool)| {
            json!({
                "tool": format!("{}.{}", server.variable, tool.tool.name),
                "signature": signature(&tool.tool.name, &tool.tool.input_schema),
                "description": tool.tool.description,
            })
        });
        Value::Array(shown.collect())
    }

    /// What `broker.describe` answers.
    pub(super) fn describe(&self, name: &str) -> Option<Value> {
        let (server, tool) = self.servers.iter().find_map(|server| {
            let tool = [server.variable.as_str(), server.server.as_str()]
                .into_iter()
                .find_map(|prefix| name.strip_prefix(prefix)?.strip_prefix('.'))?;
            Some((server, self.tools_of(server).find(|known| known.tool.name == tool)?))
        })?;
        let mut named = BTreeMap::new();
        let member = self.member(server, tool, Detail::Docs, &mut named);
        Some(json!({
            "declaration": with_named(&named, &member),
            "inputSchema": tool.tool.input_schema,
            "outputSchema": tool.tool.output_schema,
        }))
    }
}

pub(super) fn tools_of<'a>(menu: &'a Menu, server: &'a Named) -> impl Iterator<Item = &'a MenuTool> {
    menu.tools.iter().filter(move |tool| tool.server == server.server)
}

fn with_named(named: &BTreeMap<String, String>, text: &str) -> String {
    let mut all: String = named.iter().map(|(name, of)| format!("type {name} = {of};\n")).collect();
    all.push_str(text);
    all
}

fn has_required(tool: &MenuTool) -> bool {
    let required = tool.tool.input_schema.get("required").and_then(Value::as_array);
    required.is_some_and(|required| !required.is_empty()) || !tool.tool.input_schema.contains_key("properties")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Timestamp, session::AddedServer, store::sessions::Activation, supervisor::Surface,
        tools::code_mode::names,
    };
    use rmcp::model::Tool;
    use std::sync::Arc;

    fn menu(tools: Vec<Tool>) -> Menu {
        let added = AddedServer {
            server: "git-hub".parse().unwrap(),
            prefix: "git-hub".into(),
            activate: Activation::All,
            added_at: Timestamp::UNIX_EPOCH,
            fixed: false,
            surface: Some(Arc::new(Surface { tools, ..Surface::default() })),
        };
        Menu::of(&[added], true)
    }

    fn tool(name: &str, description: &str, schema: Value) -> Tool {
        let Value::Object(schema) = schema else { panic!("{schema}") };
        Tool::new(name.to_owned(), description.to_owned(), Arc::new(schema))
    }

    fn callable<'a>(menu: &'a Menu, servers: &'a [Named], learned: &'a Learned) -> Callable<'a> {
        Callable { menu, servers, learned }
    }

    #[test]
    fn tools_are_declared_with_their_docs_and_types() {
        let output = json!({"type": "object", "properties": {"next": {"$ref": "#"}}});
        let search = tool("search", "Finds\nissues.", json!({
            "type": "object", "required": ["q"],
            "properties": {"q": {"type": "string", "description": "What to find"}, "state": {"enum": ["open", "closed"]}}
        }))
        .with_raw_output_schema(crate::tools::definitions::object(output));
        let odd = tool("odd-name", "", json!({"type": "object"}));
        let (menu, servers) = (menu(vec![search, odd]), names::named(&["git-hub".parse().unwrap()]));
        let learned =
            Learned::from([(("git-hub".parse().unwrap(), "odd-name".to_owned()), "{id: number}[]".to_owned())]);
        insta::assert_snapshot!(callable(&menu, &servers, &learned).declarations(8 << 10), @r#"
        type git_hub_search_result = {next?: git_hub_search_result};
        declare const git_hub: {
          /** Finds issues. */
          search(args: {/** What to find */ q: string; state?: "open" | "closed"}): Promise<{next?: git_hub_search_result}>;
          "odd-name"(args?: {}): Promise<{id: number}[]>;
        };
        "#);
        let described = callable(&menu, &servers, &learned).describe("git-hub.odd-name").unwrap();
        assert_eq!(described["declaration"], "  \"odd-name\"(args?: {}): Promise<{id: number}[]>;");
        assert!(callable(&menu, &servers, &learned).describe("git_hub.none").is_none());
    }

    #[test]
    fn what_is_too_long_loses_docs_then_types_then_lines() {
        let schema = |note: &str| json!({"type": "object", "properties": {"a": {"type": "object", "description": note, "properties": {"b": {"type": "string", "description": note}}}}});
        let tools = (0..50).map(|n| tool(&format!("tool_{n}"), "", schema(&"word ".repeat(20)))).collect();
        let (menu, servers, learned) = (menu(tools), names::named(&["git-hub".parse().unwrap()]), Learned::new());
        let of = callable(&menu, &servers, &learned);
        let whole = of.declarations(100 << 10);
        assert!(whole.contains("/** word"));
        let typed = of.declarations(whole.len() - 1);
        assert!(!typed.contains("/**") && typed.contains("): Promise<any>;"));
        let brief = of.declarations(typed.len() - 1);
        assert!(brief.contains("  tool_49(a?: {b?: string});") && brief.contains("broker.describe"), "{brief}");
        let briefest = of.declarations(500);
        assert!(briefest.len() < 800 && briefest.contains(" more: ask broker.search"), "{briefest}");
        assert_eq!(of.search("tool_7 nothing")[0]["tool"], "git_hub.tool_7");
    }
}
