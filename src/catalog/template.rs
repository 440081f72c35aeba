//! The Docker catalog's template strings: `{{ server.path | filter:argument }}` over a server's config.
//!
//! A string that is one expression keeps the value's type, so that a list can be spliced into a command; in mixed text
//! every value is written as text. A path that leads nowhere is the empty string. The filters are the Docker catalog's:
//! `volume`, `volume-target`, `into`, `first`, `last`, `or`, `mount_as`.

use serde_json::Value;

/// Longest template that is looked at.
const TEMPLATE_BYTES_MAX: usize = 16 << 10;

/// A template that cannot be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("template `{0}` has `{{{{` without `}}}}`")]
    Unclosed(String),
    #[error("template is longer than {TEMPLATE_BYTES_MAX} bytes")]
    TooLong,
    #[error(
        "template `{template}` uses the filter `{filter}`, which does not exist (volume, volume-target, into, first, last, or, mount_as)"
    )]
    UnknownFilter { template: String, filter: String },
}

/// Evaluates `template`, looking paths up with `lookup`.
///
/// # Errors
///
/// When the template is not well formed.
pub fn evaluate(template: &str, lookup: &dyn Fn(&str) -> Option<Value>) -> Result<Value, TemplateError> {
    let parts = parse(template)?;
    if let [Part::Expression(expression)] = parts.as_slice() {
        return expression.evaluate(lookup);
    }
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Text(plain) => text.push_str(plain),
            Part::Expression(expression) => text.push_str(&as_text(&expression.evaluate(lookup)?)),
        }
    }
    Ok(Value::String(text))
}

/// Evaluates a template to one piece of text.
///
/// # Errors
///
/// As [`evaluate`].
pub fn evaluate_text(template: &str, lookup: &dyn Fn(&str) -> Option<Value>) -> Result<String, TemplateError> {
    evaluate(template, lookup).map(|value| as_text(&value))
}

/// Evaluates the items of a command line: lists are spliced, and an item that is one empty expression disappears.
///
/// # Errors
///
/// As [`evaluate`].
pub fn evaluate_list<'a>(
    templates: impl IntoIterator<Item = &'a String>,
    lookup: &dyn Fn(&str) -> Option<Value>,
) -> Result<Vec<String>, TemplateError> {
    let mut items = Vec::new();
    for template in templates {
        let literal = !template.contains("{{");
        match evaluate(template, lookup)? {
            Value::Array(values) => items.extend(values.iter().map(as_text).filter(|item| !item.is_empty())),
            value => {
                let item = as_text(&value);
                if literal || !item.is_empty() {
                    items.push(item);
                }
            }
        }
    }
    Ok(items)
}

/// Every path a template looks up, for checking it against a schema.
///
/// # Errors
///
/// As [`evaluate`].
pub fn paths(template: &str) -> Result<Vec<String>, TemplateError> {
    Ok(parse(template)?
        .into_iter()
        .filter_map(|part| match part {
            Part::Expression(expression) => Some(expression.path.to_owned()),
            Part::Text(_) => None,
        })
        .collect())
}

enum Part<'a> {
    Text(&'a str),
    Expression(Expression<'a>),
}

struct Expression<'a> {
    path: &'a str,
    filters: Vec<Filter<'a>>,
}

enum Filter<'a> {
    Volume,
    VolumeTarget,
    Into,
    First,
    Last,
    Or(&'a str),
    MountAs(&'a str),
}

fn parse(template: &str) -> Result<Vec<Part<'_>>, TemplateError> {
    if template.len() > TEMPLATE_BYTES_MAX {
        return Err(TemplateError::TooLong);
    }
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        if !before.is_empty() {
            parts.push(Part::Text(before));
        }
        let (inside, after) = after.split_once("}}").ok_or_else(|| TemplateError::Unclosed(template.to_owned()))?;
        parts.push(Part::Expression(parse_expression(template, inside)?));
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest));
    }
    Ok(parts)
}

fn parse_expression<'a>(template: &str, inside: &'a str) -> Result<Expression<'a>, TemplateError> {
    let mut pieces = inside.split('|').map(str::trim);
    let path = pieces.next().unwrap_or_default();
    let filters = pieces.map(|piece| parse_filter(template, piece)).collect::<Result<_, _>>()?;
    Ok(Expression { path, filters })
}

fn parse_filter<'a>(template: &str, piece: &'a str) -> Result<Filter<'a>, TemplateError> {
    let (name, argument) = piece.split_once(':').map_or((piece, ""), |(name, argument)| (name.trim(), argument.trim()));
    match name {
        "volume" => Ok(Filter::Volume),
        "volume-target" => Ok(Filter::VolumeTarget),
        "into" => Ok(Filter::Into),
        "first" => Ok(Filter::First),
        "last" => Ok(Filter::Last),
        "or" => Ok(Filter::Or(argument)),
        "mount_as" => Ok(Filter::MountAs(argument)),
        _ => Err(TemplateError::UnknownFilter { template: template.to_owned(), filter: name.to_owned() }),
    }
}

impl Expression<'_> {
    fn evaluate(&self, lookup: &dyn Fn(&str) -> Option<Value>) -> Result<Value, TemplateError> {
        let start = lookup(self.path).unwrap_or_else(|| Value::String(String::new()));
        Ok(self.filters.iter().fold(start, |value, filter| filter.apply(value)))
    }
}

impl Filter<'_> {
    fn apply(&self, value: Value) -> Value {
        match self {
            Self::Volume => mapped(value, &|path| format!("{path}:{path}")),
            Self::VolumeTarget => mapped(value, &str::to_owned),
            Self::Into => match value {
                Value::Array(_) => value,
                empty if is_empty(&empty) => Value::Array(Vec::new()),
                single => Value::Array(vec![single]),
            },
            Self::First => end_of(value, |items| items.into_iter().next()),
            Self::Last => end_of(value, |mut items| items.pop()),
            Self::Or(default) if is_empty(&value) => default_value(default),
            Self::Or(_) => value,
            Self::MountAs(target) => mapped(value, &|path| format!("{path}:{target}")),
        }
    }
}

fn mapped(value: Value, change: &dyn Fn(&str) -> String) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(|item| mapped(item, change)).collect()),
        empty if is_empty(&empty) => Value::String(String::new()),
        single => Value::String(change(&as_text(&single))),
    }
}

fn end_of(value: Value, pick: impl Fn(Vec<Value>) -> Option<Value>) -> Value {
    match value {
        Value::Array(items) => pick(items).unwrap_or_else(|| Value::String(String::new())),
        single => single,
    }
}

fn default_value(argument: &str) -> Value {
    match argument.strip_prefix('[').and_then(|list| list.strip_suffix(']')) {
        Some(list) => Value::Array(
            list.split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| Value::String(unquoted(item)))
                .collect(),
        ),
        None => Value::String(unquoted(argument)),
    }
}

fn unquoted(text: &str) -> String {
    let bare = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .or_else(|| text.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')));
    bare.unwrap_or(text).to_owned()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

fn as_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(as_text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lookup(path: &str) -> Option<Value> {
        match path {
            "fs.paths" => Some(json!(["/a", "/b"])),
            "fs.one" => Some(json!("/a")),
            "fs.port" => Some(json!(80)),
            "fs.flag" => Some(json!(true)),
            _ => None,
        }
    }

    fn value(template: &str) -> Value {
        evaluate(template, &lookup).unwrap()
    }

    #[test]
    fn one_expression_keeps_its_type_and_mixed_text_does_not() {
        assert_eq!(value("{{fs.paths}}"), json!(["/a", "/b"]));
        assert_eq!(value("{{ fs.port }}"), json!(80));
        assert_eq!(value("--port={{fs.port}},{{fs.flag}}"), json!("--port=80,true"));
        assert_eq!(value("plain"), json!("plain"));
    }

    #[test]
    fn a_path_that_leads_nowhere_is_empty() {
        assert_eq!(value("{{fs.none}}"), json!(""));
        assert_eq!(value("a{{fs.none}}b"), json!("ab"));
    }

    #[test]
    fn every_filter_of_the_docker_catalog() {
        assert_eq!(value("{{fs.paths|volume|into}}"), json!(["/a:/a", "/b:/b"]));
        assert_eq!(value("{{fs.paths|volume-target|into}}"), json!(["/a", "/b"]));
        assert_eq!(value("{{fs.one|into}}"), json!(["/a"]));
        assert_eq!(value("{{fs.none|into}}"), json!([]));
        assert_eq!(value("{{fs.paths|first}}"), json!("/a"));
        assert_eq!(value("{{fs.paths|last}}"), json!("/b"));
        assert_eq!(value("{{fs.none|or:UTC}}"), json!("UTC"));
        assert_eq!(value("{{fs.none|or:[x, y]}}"), json!(["x", "y"]));
        assert_eq!(value("{{fs.one|mount_as:/data:ro}}"), json!("/a:/data:ro"));
        assert_eq!(value("{{fs.none|mount_as:/data:ro}}"), json!(""));
    }

    #[test]
    fn lists_are_spliced_into_commands_and_empty_expressions_disappear() {
        let command = ["--x".to_owned(), "{{fs.paths|into}}".to_owned(), "{{fs.none}}".to_owned(), String::new()];
        assert_eq!(evaluate_list(&command, &lookup).unwrap(), ["--x", "/a", "/b", ""]);
    }

    #[test]
    fn what_is_not_a_template_is_an_error() {
        assert!(matches!(evaluate("{{fs.one", &lookup), Err(TemplateError::Unclosed(_))));
        assert!(matches!(evaluate("{{fs.one|nope}}", &lookup), Err(TemplateError::UnknownFilter { .. })));
        assert_eq!(evaluate(&"x".repeat(1 << 20), &lookup), Err(TemplateError::TooLong));
    }
}
