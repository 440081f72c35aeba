//! `/v1/catalog`: the catalog's sources.

use axum::{
    Extension, Json,
    extract::{Path, State},
};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Answer, ApiState};
use crate::{
    audit::Kind,
    catalog::{
        Trust,
        source::{Source, shown},
        sources::NewSource,
    },
    ids::Principal,
};

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(sources, add))
        .routes(routes!(remove))
        .routes(routes!(import))
        .routes(routes!(update))
        .routes(routes!(progress))
}

/// Every source, the one that counts least first, with how many of its entries count.
#[utoipa::path(
    get,
    path = "/catalog/sources",
    tag = "catalog",
    operation_id = "catalog_sources",
    responses((status = 200, description = "The sources", body = Object)),
)]
async fn sources(State(state): State<ApiState>) -> Answer {
    let inner = &state.inner;
    let snapshot = inner.catalog.snapshot();
    let mut sources = inner.sources.list();
    let mut rows = Vec::new();
    for (name, trust, servers, used) in snapshot.packs() {
        let known = sources.iter().position(|source| *source.name == *name).map(|at| sources.remove(at));
        let mut row = known.as_ref().map(value).unwrap_or_else(|| fixed(&name, trust));
        row["servers"] = json!(servers);
        row["used"] = json!(used);
        rows.push(row);
    }
    // Those that have nothing, because what they had cannot be read.
    rows.extend(sources.iter().map(value));
    Ok(Json(json!({"sources": rows, "servers": snapshot.len()})))
}

fn fixed(name: &str, trust: Trust) -> Value {
    let kind = if trust == Trust::BuiltIn { "built-in" } else { "file" };
    json!({"name": name, "kind": kind, "trust": trust.word()})
}

fn value(source: &Source) -> Value {
    json!({
        "name": source.name,
        "kind": source.kind.word(),
        "trust": source.trust().word(),
        "location": shown(&source.location),
        "servers": source.entries,
        "updated_at": source.updated_at,
        "checked_at": source.checked_at,
        "problems": source.problem_count,
        "first_problems": source.problems,
        "error": source.error,
    })
}

/// Adds a source, once it has given something.
#[utoipa::path(
    post,
    path = "/catalog/sources",
    tag = "catalog",
    operation_id = "catalog_add",
    request_body = NewSource,
    responses((status = 200, description = "The source", body = Object)),
)]
async fn add(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Json(new): Json<NewSource>,
) -> Answer {
    state.recorded(Kind::Catalog, &principal, &format!("add {}", shown(&new.location))).await?;
    let at = state.clone();
    let added = state.detached(async move { at.inner.sources.add(new).await }).await??;
    Ok(Json(json!({"sources": [value(&added)]})))
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Import {
    location: String,
}

/// Copies the servers of a file or an address, once.
#[utoipa::path(
    post,
    path = "/catalog/import",
    tag = "catalog",
    operation_id = "catalog_import",
    request_body = Import,
    responses((status = 200, description = "The source", body = Object)),
)]
async fn import(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Json(import): Json<Import>,
) -> Answer {
    state.recorded(Kind::Catalog, &principal, &format!("import {}", shown(&import.location))).await?;
    let at = state.clone();
    let imported = state.detached(async move { at.inner.sources.import(&import.location).await }).await??;
    Ok(Json(json!({"sources": [value(&imported)]})))
}

/// Removes a source with its servers, or one imported server.
#[utoipa::path(
    delete,
    path = "/catalog/sources/{name}",
    tag = "catalog",
    operation_id = "catalog_remove",
    params(("name" = String, Path)),
    responses((status = 200, description = "The sources", body = Object)),
)]
async fn remove(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Path(name): Path<String>,
) -> Answer {
    state.recorded(Kind::Catalog, &principal, &format!("remove {}", shown(&name))).await?;
    let at = state.clone();
    state.detached(async move { at.inner.sources.remove(&name).await }).await??;
    sources(State(state)).await
}

#[derive(Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
struct Update {
    /// Without a name, all of them.
    sources: Vec<String>,
}

/// Asks sources whether they have changed.
#[utoipa::path(
    post,
    path = "/catalog/update",
    tag = "catalog",
    operation_id = "catalog_update",
    request_body = Update,
    responses((status = 200, description = "The sources", body = Object)),
)]
async fn update(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Json(update): Json<Update>,
) -> Answer {
    let what: Vec<String> = update.sources.iter().take(10).map(|name| format!(" {}", shown(name))).collect();
    state.recorded(Kind::Catalog, &principal, &format!("update{}", what.join(""))).await?;
    let at = state.clone();
    let updated = state.detached(async move { at.inner.sources.update(&update.sources).await }).await??;
    Ok(Json(json!({"sources": updated.iter().map(value).collect::<Vec<_>>()})))
}

/// Says how far an update is.
#[utoipa::path(
    get,
    path = "/catalog/progress",
    tag = "catalog",
    operation_id = "catalog_progress",
    responses((status = 200, description = "How far", body = Object)),
)]
async fn progress(State(state): State<ApiState>) -> Answer {
    Ok(Json(json!({"progress": state.inner.sources.progress()})))
}
