//! What tools without an output schema return, learned from what they returned.
//!
//! Shapes are kept for every session, as what servers offer is: under what was started, so that another version of a
//! server is learned anew. A shape has no values in it, and no secret's value among its names.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError},
};

use rmcp::model::CallToolResult;
use serde_json::Value;

use super::shape::Shape;
use crate::{
    clock::SharedClock,
    ids::ServerName,
    secrets::Redactor,
    session::{Session, menu::MenuTool},
    store::Store,
    tools::Context,
};

/// Longer text is not looked at.
const TEXT_BYTES_MAX: usize = 256 << 10;
/// Servers whose shapes are in memory.
const SERVERS_MAX: usize = 512;
/// Results of one tool that are looked at while the broker runs: what they have in common is known by then, and a call is
/// not to wait for what nobody learns from.
const RESULTS_MAX: u8 = 32;
/// Tools whose results are looked at.
const TOOLS_MAX: usize = 20_000;

type Shapes = Arc<BTreeMap<String, Shape>>;

/// Shapes of results. Clones share them.
#[derive(Clone)]
pub(crate) struct Learning {
    store: Store,
    clock: SharedClock,
    redactor: Redactor,
    known: Arc<Mutex<HashMap<String, Shapes>>>,
    /// How many results of each tool were looked at.
    seen: Arc<Mutex<HashMap<(ServerName, String), u8>>>,
}

/// The learned types of servers' tools.
pub(super) type Learned = HashMap<(ServerName, String), String>;

impl Learning {
    pub(crate) fn new(store: Store, clock: SharedClock, redactor: Redactor) -> Self {
        Self { store, clock, redactor, known: Arc::default(), seen: Arc::default() }
    }

    async fn shapes(&self, fingerprint: &str) -> Shapes {
        if let Some(shapes) = self.known().get(fingerprint) {
            return shapes.clone();
        }
        let rows = match self.store.result_shapes(fingerprint).await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::warn!(%error, "could not read what was learned of a server's results");
                return Shapes::default();
            }
        };
        let read = rows.into_iter().filter_map(|(tool, shape)| Some((tool, serde_json::from_str(&shape).ok()?)));
        let read: Shapes = Arc::new(read.collect());
        let mut known = self.known();
        if known.len() >= SERVERS_MAX {
            known.clear();
        }
        known.entry(fingerprint.to_owned()).or_insert(read).clone()
    }

    /// Takes over one more shape; says what is to be kept, if it is news.
    fn merge(&self, fingerprint: &str, tool: &str, shape: Shape) -> Option<Shape> {
        let mut known = self.known();
        let shapes = known.entry(fingerprint.to_owned()).or_default();
        let before = shapes.get(tool);
        let after = match before {
            Some(before) => before.clone().merged(shape).bounded(),
            None => shape,
        };
        if before == Some(&after) {
            return None;
        }
        Arc::make_mut(shapes).insert(tool.to_owned(), after.clone());
        Some(after)
    }

    async fn learn(&self, fingerprint: String, server: ServerName, tool: String, shape: Shape) {
        let Some(shape) = self.without_secrets(&shape) else { return };
        let _ = self.shapes(&fingerprint).await;
        let Some(shape) = self.merge(&fingerprint, &tool, shape) else { return };
        let Ok(text) = serde_json::to_string(&shape) else { return };
        if let Err(error) = self.store.keep_result_shape(fingerprint, &server, tool, text, self.clock.now()).await {
            tracing::warn!(%error, "could not keep what was learned of a server's results");
        }
    }

    fn without_secrets(&self, shape: &Shape) -> Option<Shape> {
        let written = serde_json::to_string(shape).ok()?;
        serde_json::from_str(&self.redactor.redact(&written)).ok()
    }

    /// Whether another result of the tool is to be looked at.
    fn wants(&self, server: &ServerName, tool: &str) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let room = seen.len() < TOOLS_MAX;
        match seen.entry((server.clone(), tool.to_owned())) {
            Entry::Vacant(first) if room => {
                first.insert(1);
                true
            }
            Entry::Occupied(mut before) if *before.get() < RESULTS_MAX => {
                *before.get_mut() += 1;
                true
            }
            Entry::Vacant(_) | Entry::Occupied(_) => false,
        }
    }

    /// Whether none is to be looked at any more, which is quickly said.
    fn has_enough(&self, server: &ServerName, tool: &str) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&(server.clone(), tool.to_owned())).is_some_and(|looked_at| *looked_at >= RESULTS_MAX)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, Shapes>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Context {
    /// Notes what a tool returned, if nobody has said what it returns. What a server returns with a session's own config or
    /// secrets has that session's names in it: it is not for others.
    pub(crate) fn learn_result(self: &Arc<Self>, session: &Session, tool: &MenuTool, result: &CallToolResult) {
        if tool.tool.output_schema.is_some()
            || result.is_error == Some(true)
            || self.learning.has_enough(&tool.server, &tool.tool.name)
        {
            return;
        }
        let Some(entry) = self.entry(session, &tool.server) else { return };
        if !self.is_everybodys(session, &entry, &self.config_of(session, &entry))
            || !self.learning.wants(&tool.server, &tool.tool.name)
        {
            return;
        }
        let Some(shape) = shape_of(result) else { return };
        let (context, server, tool) = (self.clone(), tool.server.clone(), tool.tool.name.to_string());
        self.tasks.spawn(async move {
            let Some(fingerprint) = context.fingerprint_of(&server) else { return };
            context.learning.learn(fingerprint, server, tool, shape).await;
        });
    }

    /// What was learned of the results of these servers' tools.
    pub(crate) async fn learned_types(&self, servers: &[ServerName]) -> Learned {
        let mut types = Learned::new();
        for server in servers {
            let Some(fingerprint) = self.fingerprint_of(server) else { continue };
            let shapes = self.learning.shapes(&fingerprint).await;
            types.extend(shapes.iter().map(|(tool, shape)| ((server.clone(), tool.clone()), shape.to_type())));
        }
        types
    }

    fn fingerprint_of(&self, server: &ServerName) -> Option<String> {
        let entry = self.catalog.entry(server)?;
        let run = self.run_for(&entry).ok()?;
        Some(entry.fingerprint(run))
    }
}

/// The shape of what a script would get.
fn shape_of(result: &CallToolResult) -> Option<Shape> {
    if let Some(structured) = &result.structured_content {
        return Some(Shape::of(structured));
    }
    let texts: Option<Vec<&str>> =
        result.content.iter().map(|block| block.as_text().map(|text| text.text.as_str())).collect();
    let text = texts?.join("\n");
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    Some(Shape::of(&serde_json::from_str(&text).unwrap_or(Value::String(String::new()))))
}
