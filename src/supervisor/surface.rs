//! What a server offers: tools, prompts, resources, resource templates.

use rmcp::model::{
    ClientRequest, ListPromptsRequest, ListResourceTemplatesRequest, ListResourcesRequest, ListToolsRequest,
    PaginatedRequestParams, Prompt, Resource, ResourceTemplate, ServerCapabilities, ServerResult, Tool,
};
use serde::{Deserialize, Serialize};

use super::upstream::{RequestError, Upstream};
use crate::caller::Era;

/// Pages that are asked for at most, whatever they hold.
const PAGES_MAX: usize = 500;

/// What a server offers, complete.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Surface {
    pub tools: Vec<Tool>,
    pub prompts: Vec<Prompt>,
    pub resources: Vec<Resource>,
    pub resource_templates: Vec<ResourceTemplate>,
    pub instructions: Option<String>,
    pub capabilities: ServerCapabilities,
    /// Whether the server speaks revision 2026-07-28, so that the next start need not find out.
    pub modern: bool,
}

impl Surface {
    /// The tool of that name.
    #[must_use]
    pub fn tool(&self, name: &str) -> Option<&Tool> {
        self.tools.iter().find(|tool| tool.name == name)
    }
}

/// Asks for everything, page by page, up to `items_max` of each kind.
pub(crate) async fn read(upstream: &Upstream, items_max: usize) -> Result<Surface, RequestError> {
    let info = upstream.info();
    let capabilities = info.capabilities.clone();
    let mut surface = Surface {
        instructions: info.instructions.clone(),
        modern: upstream.era() == Era::Modern,
        ..Surface::default()
    };
    if capabilities.tools.is_some() {
        surface.tools = pages(upstream, items_max, Kind::Tools, |result| match result {
            ServerResult::ListToolsResult(page) => Some((page.tools, page.next_cursor)),
            _ => None,
        })
        .await?;
    }
    if capabilities.prompts.is_some() {
        surface.prompts = pages(upstream, items_max, Kind::Prompts, |result| match result {
            ServerResult::ListPromptsResult(page) => Some((page.prompts, page.next_cursor)),
            _ => None,
        })
        .await?;
    }
    if capabilities.resources.is_some() {
        surface.resources = pages(upstream, items_max, Kind::Resources, |result| match result {
            ServerResult::ListResourcesResult(page) => Some((page.resources, page.next_cursor)),
            _ => None,
        })
        .await?;
        surface.resource_templates = optional(
            pages(upstream, items_max, Kind::ResourceTemplates, |result| match result {
                ServerResult::ListResourceTemplatesResult(page) => Some((page.resource_templates, page.next_cursor)),
                _ => None,
            })
            .await,
        )?;
    }
    surface.capabilities = capabilities;
    Ok(surface)
}

/// Many servers that have resources have never heard of templates.
fn optional<T>(listed: Result<Vec<T>, RequestError>) -> Result<Vec<T>, RequestError> {
    match listed {
        Err(RequestError::Protocol(_)) => Ok(Vec::new()),
        other => other,
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Tools,
    Prompts,
    Resources,
    ResourceTemplates,
}

impl Kind {
    fn request(self, cursor: Option<String>) -> ClientRequest {
        let params = PaginatedRequestParams::default().with_cursor(cursor);
        match self {
            Self::Tools => ClientRequest::ListToolsRequest(ListToolsRequest::with_param(params)),
            Self::Prompts => ClientRequest::ListPromptsRequest(ListPromptsRequest::with_param(params)),
            Self::Resources => ClientRequest::ListResourcesRequest(ListResourcesRequest::with_param(params)),
            Self::ResourceTemplates => {
                ClientRequest::ListResourceTemplatesRequest(ListResourceTemplatesRequest::with_param(params))
            }
        }
    }
}

async fn pages<T>(
    upstream: &Upstream,
    items_max: usize,
    kind: Kind,
    read: impl Fn(ServerResult) -> Option<(Vec<T>, Option<String>)>,
) -> Result<Vec<T>, RequestError> {
    let mut items = Vec::new();
    let mut cursor = None;
    for _page in 0..PAGES_MAX {
        let result = upstream.small_request(kind.request(cursor.clone())).await?;
        let (page, next) = read(result).ok_or(RequestError::UnexpectedAnswer)?;
        items.extend(page);
        if next.is_none() || next == cursor || items.len() >= items_max {
            break;
        }
        cursor = next;
    }
    if items.len() > items_max {
        tracing::warn!(listed = items.len(), kept = items_max, "a server lists more than is taken from it");
        items.truncate(items_max);
    }
    Ok(items)
}
