//! `/v1/openapi.json`: this interface, described by itself.
//!
//! Every route is registered together with its description (`utoipa_axum::routes!`), which is made from the handler's own
//! types: a route that is not in the document cannot be reached.

use std::{collections::BTreeMap, sync::LazyLock};

use axum::Json;
use serde::Serialize;
use serde_json::Value;
use utoipa::{
    OpenApi as _, ToSchema,
    openapi::{
        OpenApi, RefOr, Required,
        content::ContentBuilder,
        path::Operation,
        response::{Response, ResponseBuilder},
        schema::Ref,
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};

/// Where the interface is.
const BELOW: &str = "/v1";

const SCHEME: &str = "administrator";

/// Made when somebody asks for it: there are two routers, and most brokers are never asked.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| finished(super::documented().split_for_parts().1));

/// Why something was not done.
#[derive(Serialize, ToSchema)]
pub(super) struct ErrorBody {
    error: ErrorText,
}

#[derive(Serialize, ToSchema)]
struct ErrorText {
    /// What is wrong and what to do about it.
    message: String,
    /// For a session that was not made: `servers`, each with its `name` and `problem`. For a profile: `problems`.
    #[schema(value_type = Option<Object>)]
    details: Option<Value>,
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "mcp-broker",
        description = "Sessions of MCP servers for programs, and what administrators need. A session's own token opens \
                       its MCP endpoint (`mcp_url`) and nothing here.",
    ),
    components(schemas(ErrorBody, crate::catalog::git::GitServer)),
    tags(
        (name = "sessions", description = "An MCP endpoint with servers of its own"),
        (name = "servers", description = "Servers that were added one by one"),
        (name = "profiles", description = "Servers under a name, and Compose files that were agreed to"),
        (name = "catalog", description = "Where servers come from"),
        (name = "secrets", description = "What servers need and nobody may see"),
        (name = "features", description = "What agents may do"),
        (name = "audit", description = "What was done"),
        (name = "broker", description = "The broker itself"),
    )
)]
struct Base;

/// What the routes are added to.
pub(super) fn base() -> OpenApi {
    Base::openapi()
}

/// The document with what is true of every route.
fn finished(mut document: OpenApi) -> Value {
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("The broker's token: the file `token` in its data folder"));
    let components = document.components.get_or_insert_default();
    components.security_schemes.insert(SCHEME.to_owned(), SecurityScheme::Http(scheme.build()).into());
    document.security = Some(vec![SecurityRequirement::new(SCHEME, Vec::<String>::new())]);
    let paths = std::mem::take(&mut document.paths.paths);
    for (path, mut item) in paths {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        operations.into_iter().flatten().for_each(with_errors);
        document.paths.paths.insert(format!("{BELOW}{path}"), item);
    }
    serde_json::to_value(document).unwrap_or_default()
}

fn with_errors(operation: &mut Operation) {
    let kinds = BTreeMap::from([
        ("401", "A token is missing, or is not known"),
        ("403", "The token is a session's, which opens its MCP endpoint only"),
        ("default", "It was not done"),
    ]);
    for (status, description) in kinds {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
        let response: Response =
            ResponseBuilder::new().description(description).content("application/json", content).build();
        operation.responses.responses.entry(status.to_owned()).or_insert(RefOr::T(response));
    }
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        body.required = Some(Required::True);
    }
}

/// Describes this interface, as OpenAPI 3.1.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "broker",
    operation_id = "broker_openapi",
    responses((status = 200, description = "The document", body = Object)),
)]
pub(super) async fn document() -> Json<&'static Value> {
    Json(&DOCUMENT)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What axum prints of its routes: their paths, and the methods that each answers. Those of its fallback come after.
    fn routes(printed: &str) -> BTreeSet<String> {
        let printed = printed.split("fallback_router").next().unwrap_or_default();
        let mut paths = BTreeMap::new();
        for part in printed.split("RouteId(").skip(1) {
            let Some((id, rest)) = part.split_once(')') else { continue };
            let (path, methods): &mut (String, String) = paths.entry(id.to_owned()).or_default();
            let quoted = |after: &str| Some(rest.split_once(after)?.1.split('"').next()?.to_owned());
            if let Some(found) = rest.strip_prefix(": \"").and_then(|rest| rest.split('"').next()) {
                found.clone_into(path);
            }
            if let Some(found) = quoted("allow_header: Bytes(b\"") {
                *methods = found;
            }
        }
        let of = |(path, methods): &(String, String)| {
            let methods: Vec<String> =
                methods.split(',').filter(|method| *method != "HEAD").map(str::to_lowercase).collect();
            methods.into_iter().map(|method| format!("{method} {path}")).collect::<Vec<_>>()
        };
        paths.values().flat_map(of).collect()
    }

    #[test]
    fn every_route_is_in_the_document_and_nothing_else_is() {
        let (router, document) = super::super::documented().split_for_parts();
        let routes: BTreeSet<String> = routes(&format!("{router:?}"))
            .into_iter()
            .map(|route| route.replace(" /", &format!(" {BELOW}/")))
            .collect();
        let document = finished(document);
        let mut described = BTreeSet::new();
        let mut names = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                described.insert(format!("{method} {path}"));
                assert!(names.insert(operation["operationId"].to_string()), "{method} {path}");
                let summary = operation["summary"].as_str().unwrap_or_default();
                assert!(!summary.is_empty(), "{method} {path} says what it does");
                let parameters: Vec<&str> = operation["parameters"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter(|parameter| parameter["in"] == "path")
                    .filter_map(|parameter| parameter["name"].as_str())
                    .collect();
                let placeholders: Vec<&str> =
                    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
                assert_eq!(parameters, placeholders, "{method} {path}");
            }
        }
        assert!(routes.len() > 30, "axum prints its routes otherwise than this test reads them: {router:?}");
        assert_eq!(routes, described);
    }

    #[test]
    fn what_the_document_refers_to_is_there() {
        fn references(value: &Value, found: &mut BTreeSet<String>) {
            match value {
                Value::Object(fields) => {
                    found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    fields.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let (_, document) = super::super::documented().split_for_parts();
        let document = finished(document);
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        for reference in found {
            assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
        }
    }
}
