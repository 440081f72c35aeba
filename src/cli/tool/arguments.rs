//! Arguments on a command line, as the tool's schema wants them.

use std::{collections::HashSet, fs, io::Read as _};

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};

/// What was given, before it is known what the tool takes.
pub(super) struct Given {
    whole: Map<String, Value>,
    values: Vec<(String, Word)>,
}

enum Word {
    Text(String),
    Json(Value),
}

impl Given {
    pub(super) fn read(whole: Option<&str>, values: &[String]) -> anyhow::Result<Self> {
        let mut input = None;
        let whole = match whole {
            None => Map::new(),
            Some(given) => {
                let text = content(given, &mut input)?;
                match serde_json::from_str(&text).context("--json takes one JSON object")? {
                    Value::Object(object) => object,
                    _ => bail!("--json takes one JSON object, as in '{{\"key\": 1}}'"),
                }
            }
        };
        let values = values.iter().map(|value| word(value, &mut input)).collect::<anyhow::Result<_>>()?;
        Ok(Self { whole, values })
    }

    /// The arguments, each value as what the schema says its key is.
    pub(super) fn typed(self, schema: &Value) -> anyhow::Result<Map<String, Value>> {
        let mut arguments = self.whole;
        let mut given: Map<String, Value> = Map::new();
        for (key, word) in self.values {
            let property = Property::of(schema, &schema["properties"][&key]);
            let value = match word {
                Word::Json(value) => value,
                Word::Text(text) if property.allows("array") => property.listed(&key, text)?,
                Word::Text(text) => property.value(&key, text)?,
            };
            match (given.get_mut(&key), value) {
                (Some(Value::Array(there)), Value::Array(more)) => there.extend(more),
                (Some(_), _) if property.allows("array") => {
                    bail!("`{key}` is given several times, and one of its values is no list")
                }
                (Some(_), _) => bail!("`{key}` is given twice, and the tool takes one value for it"),
                (None, value) => _ = given.insert(key, value),
            }
        }
        arguments.extend(given);
        Ok(arguments)
    }
}

/// `key=value` or `key:=JSON`.
fn word(given: &str, input: &mut Option<()>) -> anyhow::Result<(String, Word)> {
    let Some((key, value)) = given.split_once('=') else {
        bail!("`{given}` is neither `key=value` nor `key:=JSON`");
    };
    let value = content(value, input)?;
    Ok(match key.strip_suffix(':') {
        Some(key) => {
            let value = serde_json::from_str(&value).with_context(|| {
                format!("`{key}` is no JSON: text needs quotes there, or `{key}=` without the colon")
            })?;
            (key.to_owned(), Word::Json(value))
        }
        None => (key.to_owned(), Word::Text(value)),
    })
}

/// What `@FILE` and `-` stand for. Standard input can be read once.
fn content(given: &str, input: &mut Option<()>) -> anyhow::Result<String> {
    if let Some(file) = given.strip_prefix('@') {
        return fs::read_to_string(file).with_context(|| format!("could not read {file}"));
    }
    if given != "-" {
        return Ok(given.to_owned());
    }
    if input.replace(()).is_some() {
        bail!("standard input is named twice");
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("could not read standard input")?;
    Ok(text)
}

/// What a schema says of a value: itself, and all that it offers or refers to.
struct Property<'a> {
    whole: &'a Value,
    schemas: Vec<&'a Value>,
}

impl<'a> Property<'a> {
    fn of(whole: &'a Value, schema: &'a Value) -> Self {
        let mut schemas: Vec<&Value> = Vec::new();
        let mut left = vec![schema];
        let mut seen = HashSet::new();
        while let Some(schema) = left.pop() {
            // One that refers to itself is looked at once.
            if !seen.insert(std::ptr::from_ref(schema)) {
                continue;
            }
            schemas.push(schema);
            let choices = ["allOf", "oneOf", "anyOf"].iter().filter_map(|key| schema[*key].as_array());
            left.extend(choices.flat_map(|choices| choices.iter().rev()));
            let reference = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
            left.extend(reference.and_then(|pointer| whole.pointer(pointer)));
        }
        Self { whole, schemas }
    }

    /// The types that are allowed; none where nothing is said of them.
    fn types(&self) -> Vec<&'a str> {
        let mut types = Vec::new();
        for schema in &self.schemas {
            let said = match &schema["type"] {
                Value::String(one) => vec![one.as_str()],
                Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
                _ => Vec::new(),
            };
            types.extend(said);
        }
        let mut seen = HashSet::new();
        types.retain(|kind| seen.insert(*kind));
        types
    }

    fn allows(&self, kind: &str) -> bool {
        self.types().contains(&kind)
    }

    /// A value of a list, or a whole list in JSON.
    fn listed(&self, key: &str, text: String) -> anyhow::Result<Value> {
        if let Ok(Value::Array(items)) = serde_json::from_str(&text) {
            return Ok(Value::Array(items));
        }
        let items = self.schemas.iter().map(|schema| &schema["items"]).find(|items| items.is_object());
        let item = Property::of(self.whole, items.unwrap_or(&Value::Null));
        Ok(Value::Array(vec![item.value(key, text)?]))
    }

    /// The text as the most particular of the types that it can be.
    fn value(&self, key: &str, text: String) -> anyhow::Result<Value> {
        let types = self.types();
        let parsed: Option<Value> = serde_json::from_str(text.trim()).ok();
        let fits = parsed.filter(|value| match value {
            Value::Number(number) => {
                types.contains(&"number") || (types.contains(&"integer") && (number.is_i64() || number.is_u64()))
            }
            Value::Bool(_) => types.contains(&"boolean"),
            Value::Object(_) => types.contains(&"object"),
            Value::Array(_) => types.contains(&"array"),
            Value::Null => types.contains(&"null"),
            Value::String(_) => false,
        });
        match fits {
            Some(value) => Ok(value),
            None if types.is_empty() || types.contains(&"string") => Ok(Value::String(text)),
            None => bail!("`{key}` takes {}, and `{text}` is none", types.join(" or ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn typed(values: &[&str]) -> String {
        let schema = json!({
            "$defs": {
                "size": {"type": "integer"}, "same": {"$ref": "#/$defs/size"},
                "sizes": {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/size"}, {"type": "boolean"}]}},
                "endless": {"anyOf": [{"$ref": "#/$defs/endless"}, {"oneOf": [{"$ref": "#/$defs/endless"}]}]},
            },
            "properties": {
                "text": {"type": "string"}, "count": {"type": "integer"}, "ratio": {"type": "number"},
                "on": {"type": "boolean"}, "tags": {"type": "array", "items": {"type": "string"}},
                "sizes": {"type": "array", "items": {"$ref": "#/$defs/size"}}, "size": {"$ref": "#/$defs/size"},
                "filter": {"type": "object"}, "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
                "either": {"type": ["integer", "string"]},
                "optional": {"anyOf": [{"$ref": "#/$defs/size"}, {"type": "null"}]},
                "many": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/sizes"}]},
                "kept": {"allOf": [{"$ref": "#/$defs/same"}]}, "endless": {"$ref": "#/$defs/endless"},
            },
        });
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        let given = Given::read(None, &values).and_then(|given| given.typed(&schema));
        given.map_or_else(|error| format!("error: {error}"), |arguments| Value::Object(arguments).to_string())
    }

    #[test]
    fn values_are_what_the_schema_says_they_are() {
        assert_eq!(typed(&["text=3", "count=3", "ratio=3"]), r#"{"text":"3","count":3,"ratio":3}"#);
        assert_eq!(typed(&["on=true", "maybe=null", "size=4"]), r#"{"on":true,"maybe":null,"size":4}"#);
        assert_eq!(typed(&["either=3"]), r#"{"either":3}"#);
        assert_eq!(typed(&["either=x", "unknown=3", "text=a=b"]), r#"{"either":"x","unknown":"3","text":"a=b"}"#);
        assert_eq!(typed(&["filter={\"a\":1}", "text=true"]), r#"{"filter":{"a":1},"text":"true"}"#);
    }

    #[test]
    fn lists_take_a_key_several_times_or_json() {
        assert_eq!(typed(&["tags=a", "tags=b"]), r#"{"tags":["a","b"]}"#);
        assert_eq!(typed(&["sizes=1", "sizes=[2,3]"]), r#"{"sizes":[1,2,3]}"#);
        assert_eq!(typed(&["unknown:=[1]", "text:=\"@x\""]), r#"{"unknown":[1],"text":"@x"}"#);
    }

    #[test]
    fn references_are_followed_wherever_they_are() {
        assert_eq!(typed(&["optional=3", "kept=4"]), r#"{"optional":3,"kept":4}"#);
        assert_eq!(typed(&["optional=null"]), r#"{"optional":null}"#);
        assert_eq!(typed(&["many=1", "many=true", "many=[2]"]), r#"{"many":[1,true,2]}"#);
        assert_eq!(typed(&["many=x"]), "error: `many` takes integer or boolean, and `x` is none");
        assert_eq!(typed(&["endless=x"]), r#"{"endless":"x"}"#);
    }

    #[test]
    fn a_value_that_would_be_lost_is_refused() {
        assert_eq!(
            typed(&["tags=a", "tags:=\"b\""]),
            "error: `tags` is given several times, and one of its values is no list"
        );
        for twice in [["count:=1", "count:=2"], ["unknown:=1", "unknown=2"]] {
            assert!(typed(&twice).ends_with("is given twice, and the tool takes one value for it"), "{twice:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_said() {
        assert_eq!(typed(&["count=x"]), "error: `count` takes integer, and `x` is none");
        assert_eq!(typed(&["count=1.5"]), "error: `count` takes integer, and `1.5` is none");
        assert_eq!(typed(&["sizes=x"]), "error: `sizes` takes integer, and `x` is none");
        assert_eq!(typed(&["text=a", "text=b"]), "error: `text` is given twice, and the tool takes one value for it");
        assert_eq!(typed(&["text"]), "error: `text` is neither `key=value` nor `key:=JSON`");
        assert!(typed(&["filter:=x"]).starts_with("error: `filter` is no JSON"));
        assert!(typed(&["text=@/nowhere"]).starts_with("error: could not read /nowhere"));
    }
}
