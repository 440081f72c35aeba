//! `/v1/servers`: servers that the operator added one by one.

use axum::{
    Extension, Json,
    extract::{Path, State, rejection::JsonRejection},
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Answer, ApiError, ApiState};
use crate::{
    audit::Kind,
    catalog::{
        Entry, Runnable,
        git::{self, GitServer, GitUrl},
        source::shown,
    },
    ids::{Principal, ServerName},
};

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(list, add)).routes(routes!(remove))
}

/// A server from a Git repository, for the operator's own catalog.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewServer {
    name: String,
    /// `github/OWNER/REPOSITORY`, or a Git URL.
    git: String,
    /// Run in the clone to start the server, which speaks MCP on its standard streams.
    #[serde(alias = "runCmd", alias = "run_cmd")]
    run: String,
    /// Run in a fresh clone, once for each commit.
    #[serde(default, alias = "installCmd", alias = "install_cmd")]
    install: Option<String>,
    /// A branch, a tag or a commit; without it, the default branch.
    #[serde(default, rename = "ref")]
    reference: Option<String>,
    /// Variables of its environment whose values are secrets called `NAME:VARIABLE`.
    #[serde(default)]
    secrets: Vec<String>,
    /// Whether it may take the place of a server that has the name.
    #[serde(default)]
    replace: bool,
}

/// Servers that were added or imported one by one.
#[utoipa::path(
    get,
    path = "/servers",
    tag = "servers",
    operation_id = "server_list",
    responses((status = 200, description = "The servers", body = Object)),
)]
pub(super) async fn list(State(state): State<ApiState>) -> Answer {
    let servers: Vec<Value> = state.inner.sources.imported().iter().map(|entry| state.value(entry)).collect();
    Ok(Json(json!({"servers": servers})))
}

/// Adds a server to the operator's own catalog, pinned to the commit that its branch or tag is now.
#[utoipa::path(
    post,
    path = "/servers",
    tag = "servers",
    operation_id = "server_add",
    request_body = NewServer,
    responses((status = 200, description = "The server", body = Object)),
)]
pub(super) async fn add(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    body: Result<Json<NewServer>, JsonRejection>,
) -> Answer {
    let Json(new) = body?;
    let bad = |message: String| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, message);
    let name: ServerName = new.name.parse().map_err(|error| bad(format!("{error}")))?;
    let url: GitUrl =
        if new.git.starts_with("github/") { git::repository(&new.git).map(|(_, url)| url) } else { new.git.parse() }
            .map_err(|problem: String| bad(format!("`{}` {problem}", shown(&new.git))))?;
    // Only the names of the variables go into the entry.
    let envs = new.secrets.into_iter().map(|variable| (variable, "-".to_owned())).collect();
    let server = GitServer { install: new.install, run: new.run, reference: new.reference, envs };
    let problems = server.problems();
    if !problems.is_empty() {
        return Err(bad(format!("the server was not added:\n  {}", problems.join("\n  "))));
    }
    if !new.replace && state.inner.catalog.entry(&name).is_some() {
        let message =
            format!("there is a server `{name}` already: give another name, or say that it is to be replaced");
        return Err(ApiError::new(StatusCode::CONFLICT, message));
    }
    let resolved = state.inner.supervisor.resolve(url.as_str(), server.reference.as_deref()).await;
    let commit = resolved.map_err(|error| bad(format!("the server was not added: {error}")))?;
    let what = format!("add server {name}: pin {} at {commit}", shown(url.as_str()));
    state.recorded(Kind::Catalog, &principal, &what).await?;
    let entry = server.entry(&name, &url, &commit);
    let (at, added) = (state.clone(), name.clone());
    state.detached(async move { at.inner.sources.put(&added, entry).await }).await??;
    let entry = state.inner.catalog.entry(&name).ok_or_else(|| bad("the server cannot be read".to_owned()))?;
    Ok(Json(json!({"server": state.value(&entry)})))
}

/// Removes a server that was added or imported.
#[utoipa::path(
    delete,
    path = "/servers/{name}",
    tag = "servers",
    operation_id = "server_remove",
    params(("name" = String, Path)),
    responses((status = 200, description = "The servers that are left", body = Object)),
)]
pub(super) async fn remove(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Path(name): Path<String>,
) -> Answer {
    state.recorded(Kind::Catalog, &principal, &format!("remove server {}", shown(&name))).await?;
    let at = state.clone();
    state.detached(async move { at.inner.sources.remove_imported(&name).await }).await??;
    list(State(state)).await
}

impl ApiState {
    fn value(&self, entry: &Entry) -> Value {
        let kinds: Vec<&str> = entry.runs.iter().map(Runnable::kind).collect();
        let mut value = json!({"name": entry.name, "title": entry.title, "runs": kinds});
        let git = entry.runs.iter().find_map(|run| match run {
            Runnable::Package(package) if run.kind() == "git" => Some((package, self.inner.supervisor.commit_of(run))),
            _ => None,
        });
        if let Some((package, commit)) = git {
            value["git"] = json!({
                "url": shown(&package.identifier), "commit": commit, "install": package.install, "run": package.run,
            });
        }
        let secrets: Vec<&str> = entry.secrets.iter().map(|secret| secret.name.as_str()).collect();
        value["secrets"] = json!(secrets);
        value
    }
}
