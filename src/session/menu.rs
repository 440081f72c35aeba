//! What a session offers its client: every tool and prompt of its servers under the name it is called by.
//!
//! A menu is made when something changed and kept until the next change. Its order is the order in which servers were
//! added, so that adding one leaves what was listed before where it was.

use std::{
    collections::{HashMap, HashSet},
    sync::OnceLock,
};

use rmcp::model::{Prompt, Resource, ResourceTemplate, Tool};
use serde_json::Value;

use super::{AddedServer, names};
use crate::{ids::ServerName, schema::Schema, store::sessions::Activation};

/// Marks a resource that two servers have under the same URI; the second one's is reached through it.
const RESOURCE_SCHEME: &str = "broker+";

/// A tool of a server of the session.
#[derive(Debug, Clone)]
pub struct MenuTool {
    /// The name it is called by; the name its server knows is in `tool`.
    pub exposed: String,
    pub server: ServerName,
    pub tool: Tool,
    /// Whether it is listed. All can be called.
    pub listed: bool,
    compiled: OnceLock<Option<Schema>>,
}

impl MenuTool {
    /// What arguments are held against, made when it is first asked for. None where the server's schema cannot be used.
    pub(crate) fn schema(&self) -> Option<&Schema> {
        let compile = || Schema::new(Value::Object(self.tool.input_schema.as_ref().clone()));
        self.compiled.get_or_init(compile).as_ref()
    }
}

/// A prompt of a server of the session.
#[derive(Debug, Clone)]
pub struct MenuPrompt {
    pub exposed: String,
    pub server: ServerName,
    pub prompt: Prompt,
}

/// A resource of a server of the session.
#[derive(Debug, Clone)]
pub struct MenuResource {
    pub exposed_uri: String,
    pub server: ServerName,
    pub resource: Resource,
}

/// A template of a server of the session.
#[derive(Debug, Clone)]
pub struct MenuTemplate {
    pub server: ServerName,
    pub template: ResourceTemplate,
}

/// Everything, at one moment.
#[derive(Debug, Default)]
pub struct Menu {
    pub tools: Vec<MenuTool>,
    pub prompts: Vec<MenuPrompt>,
    pub resources: Vec<MenuResource>,
    pub templates: Vec<MenuTemplate>,
    /// Whether it is known of every server what it offers.
    pub complete: bool,
    by_exposed: HashMap<String, usize>,
    prefixes: HashMap<String, ServerName>,
}

/// What a name given to `mcp-exec` stands for.
pub enum Found<'a> {
    Tool(&'a MenuTool),
    /// Several servers have a tool of that bare name.
    Ambiguous(Vec<&'a MenuTool>),
    Nothing,
}

impl Menu {
    /// The menu of these servers.
    #[must_use]
    pub fn of(servers: &[AddedServer], with_prefixes: bool) -> Self {
        let complete = servers.iter().all(|added| added.surface.is_some());
        let mut menu = Self { complete, ..Self::default() };
        let mut taken: HashSet<String> = names::RESERVED.iter().map(|name| (*name).to_owned()).collect();
        let mut prompts = HashSet::new();
        let mut uris = HashSet::new();
        for added in servers {
            menu.prefixes.insert(added.prefix.clone(), added.server.clone());
            menu.add_tools(added, with_prefixes, &mut taken);
            menu.add_prompts(added, with_prefixes, &mut prompts);
            menu.add_resources(added, &mut uris);
        }
        menu
    }

    fn add_tools(&mut self, added: &AddedServer, with_prefixes: bool, taken: &mut HashSet<String>) {
        let Some(surface) = &added.surface else { return };
        for tool in &surface.tools {
            let exposed = exposed(&added.prefix, &tool.name, with_prefixes, taken);
            self.by_exposed.insert(exposed.clone(), self.tools.len());
            self.tools.push(MenuTool {
                listed: added.activate.lists(&tool.name),
                exposed,
                server: added.server.clone(),
                tool: tool.clone(),
                compiled: OnceLock::new(),
            });
        }
    }

    fn add_prompts(&mut self, added: &AddedServer, with_prefixes: bool, taken: &mut HashSet<String>) {
        let Some(surface) = &added.surface else { return };
        if added.activate == Activation::None {
            return;
        }
        for prompt in &surface.prompts {
            self.prompts.push(MenuPrompt {
                exposed: exposed(&added.prefix, &prompt.name, with_prefixes, taken),
                server: added.server.clone(),
                prompt: prompt.clone(),
            });
        }
    }

    fn add_resources(&mut self, added: &AddedServer, taken: &mut HashSet<String>) {
        let Some(surface) = &added.surface else { return };
        for resource in &surface.resources {
            let exposed_uri = if taken.insert(resource.uri.clone()) {
                resource.uri.clone()
            } else {
                format!("{RESOURCE_SCHEME}{}:{}", added.prefix, resource.uri)
            };
            self.resources.push(MenuResource { exposed_uri, server: added.server.clone(), resource: resource.clone() });
        }
        for template in &surface.resource_templates {
            self.templates.push(MenuTemplate { server: added.server.clone(), template: template.clone() });
        }
    }

    /// The tool of that exposed name.
    #[must_use]
    pub fn tool(&self, exposed: &str) -> Option<&MenuTool> {
        self.by_exposed.get(exposed).and_then(|index| self.tools.get(*index))
    }

    /// The tool that `name` stands for: an exposed name, or a server's own name for it where only one server has it.
    #[must_use]
    pub fn find_tool(&self, name: &str) -> Found<'_> {
        if let Some(tool) = self.tool(name) {
            return Found::Tool(tool);
        }
        let named: Vec<&MenuTool> =
            self.tools.iter().filter(|tool| tool.tool.name == name || is_qualified(tool, name)).collect();
        match named.as_slice() {
            [] => Found::Nothing,
            [only] => Found::Tool(only),
            _ => Found::Ambiguous(named),
        }
    }

    /// The prompt of that exposed name.
    #[must_use]
    pub fn prompt(&self, exposed: &str) -> Option<&MenuPrompt> {
        self.prompts.iter().find(|prompt| prompt.exposed == exposed)
    }

    /// The server that has the resource `uri`, and the URI it knows it by.
    ///
    /// A URI that no server lists is looked for among the templates; if none fits, and one server only has resources, it is
    /// that server's.
    #[must_use]
    pub fn resource_owner(&self, uri: &str) -> Option<(ServerName, String)> {
        if let Some(listed) = self.resources.iter().find(|resource| resource.exposed_uri == uri) {
            return Some((listed.server.clone(), listed.resource.uri.clone()));
        }
        if let Some((prefix, inner)) = uri.strip_prefix(RESOURCE_SCHEME).and_then(|rest| rest.split_once(':')) {
            return self.prefixes.get(prefix).map(|server| (server.clone(), inner.to_owned()));
        }
        if let Some(template) =
            self.templates.iter().find(|template| template_fits(&template.template.uri_template, uri))
        {
            return Some((template.server.clone(), uri.to_owned()));
        }
        let mut owners: Vec<&ServerName> = self
            .resources
            .iter()
            .map(|resource| &resource.server)
            .chain(self.templates.iter().map(|template| &template.server))
            .collect();
        owners.dedup();
        match owners.as_slice() {
            [only] => Some(((*only).clone(), uri.to_owned())),
            _ => None,
        }
    }

    /// The server whose template this is.
    #[must_use]
    pub fn template_owner(&self, uri_template: &str) -> Option<ServerName> {
        let found = self.templates.iter().find(|template| template.template.uri_template == uri_template);
        found.map(|template| template.server.clone())
    }

    /// Exposed tool names close to one that does not exist.
    #[must_use]
    pub fn similar_tools(&self, name: &str) -> Vec<&str> {
        const SUGGESTIONS_MAX: usize = 5;
        let wanted = words(name.rsplit_once(names::SEPARATOR).map_or(name, |(_, tool)| tool));
        let mut scored: Vec<(usize, &str)> = self
            .tools
            .iter()
            .map(|tool| {
                (words(&tool.tool.name).iter().filter(|word| wanted.contains(word)).count(), tool.exposed.as_str())
            })
            .filter(|(shared, _)| *shared > 0)
            .collect();
        scored.sort_by_key(|(shared, _)| std::cmp::Reverse(*shared));
        scored.into_iter().take(SUGGESTIONS_MAX).map(|(_, name)| name).collect()
    }
}

/// Whether `name` is the server's and the tool's own names, joined as a person or another gateway would.
fn is_qualified(tool: &MenuTool, name: &str) -> bool {
    let Some(rest) = name.strip_prefix(tool.server.as_str()) else {
        return false;
    };
    [names::SEPARATOR, ".", ":", "/"]
        .iter()
        .any(|separator| rest.strip_prefix(separator) == Some(tool.tool.name.as_ref()))
}

fn exposed(prefix: &str, name: &str, with_prefixes: bool, taken: &mut HashSet<String>) -> String {
    let bare =
        if with_prefixes { None } else { Some(names::without_prefix(name)).filter(|bare| !taken.contains(bare)) };
    let mut exposed = bare.unwrap_or_else(|| names::with_prefix(prefix, name));
    if taken.contains(&exposed) {
        exposed = names::told_apart(&exposed, name);
    }
    taken.insert(exposed.clone());
    exposed
}

/// Whether `uri` could have been made from an RFC 6570 template: its fixed parts appear in order, from start to end.
fn template_fits(template: &str, uri: &str) -> bool {
    let mut rest = uri;
    let mut parts = template.split('{');
    let Some(after_start) = parts.next().and_then(|start| rest.strip_prefix(start)) else {
        return false;
    };
    rest = after_start;
    let mut open_ended = false;
    for part in parts {
        let Some((_, fixed)) = part.split_once('}') else {
            return false;
        };
        open_ended = fixed.is_empty();
        match rest.find(fixed) {
            Some(at) => rest = &rest[at + fixed.len()..],
            None => return false,
        }
    }
    open_ended || rest.is_empty()
}

fn words(name: &str) -> Vec<String> {
    name.split(|character: char| !character.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::Timestamp, supervisor::Surface};
    use rmcp::model::JsonObject;
    use std::sync::Arc;

    fn server(name: &str, prefix: &str, tools: &[&str]) -> AddedServer {
        let tools = tools.iter().map(|tool| Tool::new((*tool).to_owned(), "", Arc::new(JsonObject::new()))).collect();
        AddedServer {
            server: name.parse().unwrap(),
            prefix: prefix.into(),
            activate: Activation::All,
            added_at: Timestamp::UNIX_EPOCH,
            fixed: false,
            surface: Some(Arc::new(Surface { tools, ..Surface::default() })),
        }
    }

    fn exposed_names(servers: &[AddedServer], with_prefixes: bool) -> Vec<String> {
        Menu::of(servers, with_prefixes).tools.into_iter().map(|tool| tool.exposed).collect()
    }

    #[test]
    fn names_do_not_change_when_a_server_is_added() {
        let (first, second) = (server("one", "one", &["search", "x.y", "x_y"]), server("two", "two", &["search"]));
        for with_prefixes in [true, false] {
            let alone = exposed_names(std::slice::from_ref(&first), with_prefixes);
            let both = exposed_names(&[first.clone(), second.clone()], with_prefixes);
            assert_eq!(both[..alone.len()], alone);
            assert_eq!(both.iter().collect::<HashSet<_>>().len(), both.len());
        }
    }

    #[test]
    fn a_server_cannot_pose_as_the_broker() {
        let names = exposed_names(&[server("evil", "evil", &["mcp-add"])], false);
        assert_eq!(names, ["evil__mcp-add"]);
    }

    #[test]
    fn a_menu_says_whether_a_server_has_not_told_yet() {
        let told = server("one", "one", &["search"]);
        let untold = AddedServer { surface: None, ..server("two", "two", &[]) };
        assert!(Menu::of(&[], true).complete);
        assert!(Menu::of(std::slice::from_ref(&told), true).complete);
        assert!(!Menu::of(&[told, untold], true).complete);
    }

    #[test]
    fn a_bare_name_is_found_where_it_is_the_only_one() {
        let menu = Menu::of(&[server("one", "one", &["search", "only"]), server("two", "two", &["search"])], true);
        assert!(matches!(menu.find_tool("only"), Found::Tool(tool) if tool.exposed == "one__only"));
        assert!(matches!(menu.find_tool("one.only"), Found::Tool(_)));
        assert!(matches!(menu.find_tool("search"), Found::Ambiguous(both) if both.len() == 2));
        assert!(matches!(menu.find_tool("nothing"), Found::Nothing));
        assert_eq!(menu.similar_tools("two__serch_search"), ["one__search", "two__search"]);
    }

    #[test]
    fn templates_fit_what_they_made() {
        assert!(template_fits("test://template/{id}/data", "test://template/12/data"));
        assert!(!template_fits("test://template/{id}/data", "test://template/12/other"));
        assert!(template_fits("file:///{+path}", "file:///a/b/c"));
        assert!(!template_fits("file:///{+path}", "http://x"));
        assert!(template_fits("fixed://x", "fixed://x"));
        assert!(!template_fits("fixed://x", "fixed://xy"));
        assert!(!template_fits("broken://{", "broken://"));
    }
}
