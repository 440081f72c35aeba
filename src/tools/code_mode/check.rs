//! Arguments of a script's calls, held against the tools' input schemas before anything is called.
//!
//! A client's calls are not checked (servers disagree with their own schemas, and the server's word is what counts). A
//! script's are: it makes many at once, and the whole run is what has to be repeated when one is wrong.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use js_runtime::CallError;
use jsonschema::Validator;
use serde_json::Value;

use crate::{session::menu::MenuTool, tools::signature::signature};

const PROBLEMS_MAX: usize = 5;
const PROBLEM_CHARACTERS_MAX: usize = 300;

/// The schemas that one run has used. A tool whose schema cannot be used is not checked.
#[derive(Default)]
pub(super) struct Checks {
    compiled: Mutex<HashMap<String, Option<Arc<Validator>>>>,
}

impl Checks {
    /// What is wrong with the arguments of a call, if anything is. Then the call is not made, and has no record.
    pub(super) fn problem(&self, tool: &MenuTool, arguments: &Value) -> Option<CallError> {
        let validator = self.validator(tool)?;
        let problems: Vec<String> = validator
            .iter_errors(arguments)
            .take(PROBLEMS_MAX)
            .map(|error| {
                let place = error.instance_path().to_string();
                let problem: String = error.to_string().chars().take(PROBLEM_CHARACTERS_MAX).collect();
                if place.is_empty() { problem } else { format!("{problem} (at {place})") }
            })
            .collect();
        if problems.is_empty() {
            return None;
        }
        let name = &tool.tool.name;
        Some(CallError {
            message: format!(
                "`{name}` was not called, because its arguments do not fit: {}. It is {}; the error's `schema` says all",
                problems.join("; "),
                signature(name, &tool.tool.input_schema),
            ),
            schema: Some(Value::Object(tool.tool.input_schema.as_ref().clone())),
        })
    }

    fn validator(&self, tool: &MenuTool) -> Option<Arc<Validator>> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = compiled.get(&tool.exposed) {
            return known.clone();
        }
        let schema = Value::Object(tool.tool.input_schema.as_ref().clone());
        let validator = jsonschema::validator_for(&schema).ok().map(Arc::new);
        compiled.insert(tool.exposed.clone(), validator.clone());
        validator
    }
}
