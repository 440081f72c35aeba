//! What was done in a session, for whoever is in it.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Context, failure::Failure, find::shortened};
use crate::{
    session::Session,
    store::audit::{Query, Record},
};

/// Records that one answer holds at most.
pub(super) const RECORDS_MAX: u32 = 100;

/// Arguments and errors are shown up to here.
const TEXT_CHARACTERS_MAX: usize = 200;

/// The session's last records, the newest last. The call that asks is not among them.
pub(super) async fn of(context: &Context, session: &Session, limit: u32) -> Result<Vec<Record>, Failure> {
    let query = Query { session: Some(session.id().clone()), ..Query::default() };
    let mut records = context.audit.records(&query, limit + 1).await?;
    records.retain(|record| record.status.is_some());
    let surplus = records.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(records.split_off(surplus))
}

pub(super) fn to_value(record: &Record) -> Value {
    let mut value = json!({
        "at": record.opened_at.to_string(),
        "kind": record.kind,
        "name": record.name,
        "status": record.status,
    });
    let optional = [
        ("server", record.server.clone()),
        ("arguments", record.arguments.as_deref().map(|text| shortened(text, TEXT_CHARACTERS_MAX))),
        ("error", record.error.as_deref().map(|text| shortened(text, TEXT_CHARACTERS_MAX))),
    ];
    for (key, text) in optional {
        if let Some(text) = text {
            value[key] = json!(text);
        }
    }
    if let Some(micros) = record.duration_micros {
        value["ms"] = json!(micros / 1000);
    }
    value
}

/// One line a record.
pub(super) fn lines(records: &[Record]) -> String {
    let mut text = String::new();
    for record in records {
        let server = record.server.as_deref().map(|server| format!("{server}: ")).unwrap_or_default();
        let status = record.status.as_deref().unwrap_or("open");
        let _ = write!(text, "{} {} {server}{} {status}", record.opened_at, record.kind, record.name);
        if let Some(error) = &record.error {
            let _ = write!(text, ": {}", shortened(error, TEXT_CHARACTERS_MAX).replace('\n', " "));
        }
        text.push('\n');
    }
    text
}
