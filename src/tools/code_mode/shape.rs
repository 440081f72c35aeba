//! The shape of results: which types and which members they have, and never a value.
//!
//! Shapes of several results are merged: a member that not all have is optional, types that differ become a union. Names
//! are kept only where they look like names: an object whose keys look like data (addresses, paths, ids), or that has too
//! many of them, is a map, and of a map the keys are not kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

const DEPTH_MAX: usize = 6;
/// Values that are looked at in one result.
const VALUES_MAX: usize = 5_000;
/// Items of one list that are looked at.
const ITEMS_MAX: usize = 50;
/// An object with more members is a map.
const MEMBERS_MAX: usize = 32;
const MEMBER_BYTES_MAX: usize = 40;
const MEMBER_DIGITS_MAX: usize = 4;
/// What is kept of one tool's results.
const NODES_MAX: usize = 120;

/// What values that were seen have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Shape {
    #[serde(skip_serializing_if = "is_false")]
    null: bool,
    #[serde(skip_serializing_if = "is_false")]
    boolean: bool,
    #[serde(skip_serializing_if = "is_false")]
    number: bool,
    #[serde(skip_serializing_if = "is_false")]
    string: bool,
    /// Deeper, or more, than is kept.
    #[serde(skip_serializing_if = "is_false")]
    any: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    array: Option<Box<Shape>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<Object>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Object {
    Members(BTreeMap<String, Member>),
    Map(Box<Shape>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Member {
    shape: Shape,
    #[serde(default, skip_serializing_if = "is_false")]
    optional: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(value: &bool) -> bool {
    !value
}

impl Shape {
    /// The shape of one value.
    pub(super) fn of(value: &Value) -> Self {
        let mut room = VALUES_MAX;
        Self::within(value, 0, &mut room).bounded()
    }

    fn within(value: &Value, depth: usize, room: &mut usize) -> Self {
        let unknown = Self { any: true, ..Self::default() };
        if depth > DEPTH_MAX || *room == 0 {
            return unknown;
        }
        *room -= 1;
        match value {
            Value::Null => Self { null: true, ..Self::default() },
            Value::Bool(_) => Self { boolean: true, ..Self::default() },
            Value::Number(_) => Self { number: true, ..Self::default() },
            Value::String(_) => Self { string: true, ..Self::default() },
            Value::Array(items) => {
                let item = items
                    .iter()
                    .take(ITEMS_MAX)
                    .map(|item| Self::within(item, depth + 1, room))
                    .fold(Self::default(), Self::merged);
                Self { array: Some(Box::new(item)), ..Self::default() }
            }
            Value::Object(members) => {
                let is_map = members.len() > MEMBERS_MAX || !members.keys().all(|name| is_name(name));
                let shapes =
                    members.iter().take(ITEMS_MAX).map(|(name, value)| (name, Self::within(value, depth + 1, room)));
                let object = if is_map {
                    Object::Map(Box::new(shapes.map(|(_, shape)| shape).fold(Self::default(), Self::merged)))
                } else {
                    let members = shapes.map(|(name, shape)| (name.clone(), Member { shape, optional: false }));
                    Object::Members(members.collect()).or_map()
                };
                Self { object: Some(object), ..Self::default() }
            }
        }
    }

    /// The shape of what has one or the other.
    #[must_use]
    pub(super) fn merged(self, other: Self) -> Self {
        Self {
            null: self.null || other.null,
            boolean: self.boolean || other.boolean,
            number: self.number || other.number,
            string: self.string || other.string,
            any: self.any || other.any,
            array: match (self.array, other.array) {
                (Some(one), Some(two)) => Some(Box::new(one.merged(*two))),
                (one, two) => one.or(two),
            },
            object: match (self.object, other.object) {
                (Some(one), Some(two)) => Some(one.merged(two)),
                (one, two) => one.or(two),
            },
        }
    }

    /// The same, with its deepest parts left out until it is small enough to keep.
    #[must_use]
    pub(super) fn bounded(mut self) -> Self {
        let mut depth = DEPTH_MAX;
        while self.nodes() > NODES_MAX && depth > 0 {
            depth -= 1;
            self.cut(depth);
        }
        self
    }

    fn nodes(&self) -> usize {
        let object = match &self.object {
            Some(Object::Members(members)) => members.values().map(|member| member.shape.nodes()).sum(),
            Some(Object::Map(value)) => value.nodes(),
            None => 0,
        };
        1 + object + self.array.as_ref().map_or(0, |item| item.nodes())
    }

    fn cut(&mut self, depth: usize) {
        if depth == 0 {
            *self = Self { any: true, ..Self::default() };
            return;
        }
        if let Some(item) = &mut self.array {
            item.cut(depth - 1);
        }
        match &mut self.object {
            Some(Object::Members(members)) => members.values_mut().for_each(|member| member.shape.cut(depth - 1)),
            Some(Object::Map(value)) => value.cut(depth - 1),
            None => {}
        }
    }

    /// As TypeScript writes it.
    pub(super) fn to_type(&self) -> String {
        if self.any {
            return "any".to_owned();
        }
        let plain = [(self.string, "string"), (self.number, "number"), (self.boolean, "boolean")];
        let mut options: Vec<String> =
            plain.into_iter().filter(|(seen, _)| *seen).map(|(_, name)| name.to_owned()).collect();
        if let Some(item) = &self.array {
            let item = item.to_type();
            options.push(if item.contains(" | ") && !item.ends_with('}') {
                format!("({item})[]")
            } else {
                format!("{item}[]")
            });
        }
        match &self.object {
            Some(Object::Members(members)) => {
                let members: Vec<String> = members
                    .iter()
                    .map(|(name, member)| {
                        let mark = if member.optional { "?" } else { "" };
                        format!("{}{mark}: {}", super::types::key(name), member.shape.to_type())
                    })
                    .collect();
                options.push(format!("{{{}}}", members.join(", ")));
            }
            Some(Object::Map(value)) => options.push(format!("Record<string, {}>", value.to_type())),
            None => {}
        }
        if self.null {
            options.push("null".to_owned());
        }
        if options.is_empty() { "any".to_owned() } else { options.join(" | ") }
    }
}

impl Object {
    fn merged(self, other: Self) -> Self {
        match (self, other) {
            (Self::Members(mut one), Self::Members(two)) => {
                let apart = !one.is_empty() && !two.is_empty() && !two.keys().any(|name| one.contains_key(name));
                for (name, member) in &mut one {
                    member.optional |= !two.contains_key(name);
                }
                for (name, member) in two {
                    let merged = match one.remove(&name) {
                        Some(known) => Member {
                            shape: known.shape.merged(member.shape),
                            optional: known.optional || member.optional,
                        },
                        None => Member { optional: true, ..member },
                    };
                    one.insert(name, merged);
                }
                if apart || one.len() > MEMBERS_MAX { Self::Members(one).into_map() } else { Self::Members(one) }
            }
            (one, two) => Self::Map(Box::new(one.values().merged(two.values()))),
        }
    }

    /// Several members that are objects of one kind are a map's: their names are data.
    fn or_map(self) -> Self {
        let Self::Members(members) = &self else { return self };
        let mut shapes = members.values().map(|member| &member.shape);
        let first = shapes.next();
        let alike = first.is_some_and(|first| {
            matches!(&first.object, Some(Object::Members(inner)) if !inner.is_empty())
                && shapes.all(|shape| shape == first)
        });
        if alike && members.len() > 1 { self.into_map() } else { self }
    }

    fn into_map(self) -> Self {
        Self::Map(Box::new(self.values()))
    }

    /// What the values have in common, whatever they are called.
    fn values(self) -> Shape {
        match self {
            Self::Members(members) => {
                members.into_values().map(|member| member.shape).fold(Shape::default(), Shape::merged)
            }
            Self::Map(value) => *value,
        }
    }
}

/// Whether a key looks like a name that a program was written with, rather than like data.
fn is_name(key: &str) -> bool {
    let starts_well =
        key.starts_with(|character: char| character.is_ascii_alphabetic() || matches!(character, '_' | '$'));
    starts_well
        && key.len() <= MEMBER_BYTES_MAX
        && key.chars().all(|character| character.is_ascii_alphanumeric() || matches!(character, '_' | '$' | '-'))
        && key.chars().filter(char::is_ascii_digit).count() <= MEMBER_DIGITS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn type_of(values: &[Value]) -> String {
        values.iter().map(Shape::of).fold(Shape::default(), Shape::merged).bounded().to_type()
    }

    #[test]
    fn shapes_of_several_results_are_one_type() {
        let seen = [
            json!({"items": [{"id": 1, "name": "a"}, {"id": 2, "name": null, "odd-key": true}], "next": "x"}),
            json!({"items": [], "next": null}),
        ];
        assert_eq!(
            type_of(&seen),
            "{items: {id: number, name: string | null, \"odd-key\"?: boolean}[], next: string | null}"
        );
        assert_eq!(type_of(&[json!("text"), json!([1, "a"])]), "string | (string | number)[]");
        assert_eq!(type_of(&[json!([])]), "any[]");
    }

    #[test]
    fn no_value_is_kept_where_keys_are_values() {
        let people = json!({"ann@example.com": {"age": 1}, "bob@example.com": {"age": 2}});
        assert_eq!(type_of(&[people]), "Record<string, {age: number}>");
        assert_eq!(type_of(&[json!({"ann": {"age": 1}, "bob": {"age": 2}})]), "Record<string, {age: number}>");
        assert_eq!(type_of(&[json!({"ann": 1}), json!({"bob": 2})]), "Record<string, number>");
        let kept = serde_json::to_string(&Shape::of(&json!({"password": "hunter2", "n": 4711}))).unwrap();
        assert!(!kept.contains("hunter2") && !kept.contains("4711"), "{kept}");
    }

    #[test]
    fn shapes_stay_small_whatever_comes() {
        let mut deep = json!(1);
        for _ in 0..200 {
            deep = json!({"inner": deep});
        }
        let wide: serde_json::Map<String, Value> = (0..1000).map(|n| (format!("k{n}"), json!({"a": n}))).collect();
        let bushy = json!((0..30).map(|n| (format!("k{n}"), wide_of(4, n))).collect::<serde_json::Map<_, _>>());
        for value in [deep, Value::Object(wide), bushy] {
            let shape = Shape::of(&value);
            assert!(shape.nodes() <= NODES_MAX && serde_json::to_string(&shape).unwrap().len() < 16 << 10, "{shape:?}");
        }
    }

    fn wide_of(depth: usize, salt: usize) -> Value {
        if depth == 0 {
            return json!(salt);
        }
        json!(
            (0..4)
                .map(|n| (format!("m{n}{}", "x".repeat(salt % 7)), wide_of(depth - 1, salt + n)))
                .collect::<serde_json::Map<_, _>>()
        )
    }

    #[test]
    fn merging_comes_to_rest() {
        let one = Shape::of(&json!({"a": 1, "b": [{"c": 1}]}));
        let both = one.clone().merged(Shape::of(&json!({"a": "x"})));
        assert_eq!(both.clone().merged(one.clone()), both);
        assert_eq!(both.clone().merged(both.clone()), both);
        assert_eq!(serde_json::from_str::<Shape>(&serde_json::to_string(&both).unwrap()).unwrap(), both);
    }
}
