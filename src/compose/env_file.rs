//! Files of variables, `NAME=value` a line, as Compose reads `.env` and `env_file`.
//!
//! Empty lines and those that begin with `#` say nothing; `export` before a name is let be. A value in single quotes is as
//! it is, one in double quotes has escapes (`\n`, `\t`, `\"`, `\\`, `\$`) and may go on over lines; elsewhere ` #` begins a
//! comment. Except in single quotes, variables are filled in, from those before it in the file first.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Environment,
    service::looks_secret,
    variables::{Room, VARIABLE_BYTES, fill},
};

/// A file of variables that was read.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub(super) variables: Environment,
    /// The variables from outside of the file that each one of it names, whether they are set or not.
    pub(super) named: BTreeMap<String, BTreeSet<String>>,
    /// The variables that have another one in them that looks like a secret.
    pub(super) secretive: BTreeSet<String>,
}

/// Reads a file's text. `outside` has the variables that are not in it.
///
/// # Errors
///
/// A sentence that names the line. No value is in it.
pub(super) fn parse(text: &str, outside: &dyn Fn(&str) -> Option<String>, room: &mut Room) -> Result<Parsed, String> {
    let Parsed { mut variables, mut named, mut secretive } = Parsed::default();
    let mut lines = text.trim_start_matches('\u{feff}').lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |what: &str| format!("line {}: {what}", at + 1);
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = line.split_once('=').map(|(name, value)| (name.trim_end(), value.trim_start()))
        else {
            // A name alone takes the value that it has outside, if it has one.
            if !is_name(line) {
                return Err(wrong("has no `=`"));
            }
            named.entry(line.to_owned()).or_default().insert(line.to_owned());
            if let Some(value) = outside(line) {
                room.take(value.len()).map_err(|problem| wrong(&problem))?;
                secretive.remove(line);
                variables.insert(line.to_owned(), value);
            }
            continue;
        };
        if !is_name(name) {
            return Err(wrong("does not begin with a variable's name"));
        }
        let value = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                let mut quoted = value[1..].to_owned();
                let end = loop {
                    if let Some(end) = end_of(&quoted, quote) {
                        break end;
                    }
                    let (_, more) = lines.next().ok_or_else(|| wrong("has a quote that does not end"))?;
                    quoted.push('\n');
                    quoted.push_str(more);
                };
                let after = quoted[end + 1..].trim();
                if !after.is_empty() && !after.starts_with('#') {
                    return Err(wrong("has something after the quote's end"));
                }
                quoted.truncate(end);
                if quote == '\'' { Value::AsItIs(quoted) } else { Value::WithVariables(unescaped(&quoted)) }
            }
            _ => Value::WithVariables(without_comment(value).to_owned()),
        };
        let value = match value {
            Value::AsItIs(text) => {
                room.take(text.len()).map_err(|problem| wrong(&problem))?;
                named.insert(name.to_owned(), BTreeSet::new());
                secretive.remove(name);
                text
            }
            Value::WithVariables(text) => {
                let lookup = |name: &str| variables.get(name).cloned().or_else(|| outside(name));
                let filled = fill(&text, &lookup, room).map_err(|problem| wrong(&problem))?;
                let is_secretive = |name: &String| {
                    secretive.contains(name) || lookup(name).is_some_and(|value| looks_secret(name, &value))
                };
                if filled.used.iter().any(is_secretive) {
                    secretive.insert(name.to_owned());
                } else {
                    secretive.remove(name);
                }
                let mut from = BTreeSet::new();
                for name in filled.named {
                    match named.get(&name) {
                        Some(names) => from.extend(names.iter().cloned()),
                        None => {
                            from.insert(name);
                        }
                    }
                }
                // One that names all that those before it name: a file of such lines would grow by the square.
                let bytes = from.iter().map(|name| name.len() + VARIABLE_BYTES).sum();
                room.take(bytes).map_err(|problem| wrong(&problem))?;
                named.insert(name.to_owned(), from);
                filled.text
            }
        };
        variables.insert(name.to_owned(), value);
    }
    Ok(Parsed { variables, named, secretive })
}

enum Value {
    AsItIs(String),
    WithVariables(String),
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|letter: char| letter.is_ascii_digit())
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.' | '-'))
}

/// Where a quoted value ends.
fn end_of(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            letter if letter == quote => return Some(at),
            _ => {}
        }
    }
    None
}

/// What double quotes hold. A dollar sign that is escaped is doubled, for what fills in variables.
fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, if letter == '\\' { letters.next() } else { None }) {
            ('\\', Some('n')) => plain.push('\n'),
            ('\\', Some('r')) => plain.push('\r'),
            ('\\', Some('t')) => plain.push('\t'),
            ('\\', Some('$')) => plain.push_str("$$"),
            ('\\', Some(other @ ('"' | '\\'))) => plain.push(other),
            ('\\', Some(other)) => plain.extend(['\\', other]),
            (letter, _) => plain.push(letter),
        }
    }
    plain
}

fn without_comment(value: &str) -> &str {
    if value.starts_with('#') {
        return "";
    }
    value.split_once(" #").map_or(value, |(value, _)| value).trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<(String, String)>, String> {
        let outside = |name: &str| (name == "HOME").then(|| "/home/me".to_owned());
        parse(text, &outside, &mut Room::of(1 << 20)).map(|parsed| parsed.variables.into_iter().collect())
    }

    #[test]
    fn what_a_value_names_outside_is_known_whether_it_is_set_or_not() {
        let text = "A=${OUT_1}\nB=$A-${OUT_2:-}${A:+${OUT_5:-$OUT_6}}\nC='$OUT_3'\nOUT_4\nD=$C\nA\n";
        for value in [None, Some("x".to_owned())] {
            let outside = |name: &str| value.clone().filter(|_| name.starts_with("OUT"));
            let parsed = parse(text, &outside, &mut Room::of(10_000)).unwrap();
            let of = |name: &str| parsed.named[name].iter().map(String::as_str).collect::<Vec<_>>();
            assert_eq!((of("A"), of("C")), (vec!["A", "OUT_1"], vec![]));
            assert_eq!((of("B"), of("D")), (vec!["OUT_1", "OUT_2", "OUT_5", "OUT_6"], vec![]));
            assert_eq!(of("OUT_4"), ["OUT_4"]);
            assert_eq!(parsed.named.len(), 5);
        }
        let square: String = (0..20_000).map(|at| format!("V{0}=$V{at}$X{at}\n", at + 1)).collect();
        let grown = parse(&square, &|_| None, &mut Room::of(4 << 20)).unwrap_err();
        assert!(grown.contains("too large"), "{grown}");
    }

    #[test]
    fn a_value_that_has_a_secret_in_it_is_known() {
        let outside = |name: &str| (name == "API_TOKEN").then(|| "hunter2".to_owned());
        let text = "DB_PASSWORD=hunter3\nTAG=${DB_PASSWORD}\nDEEP=x${TAG}\nOF=${API_TOKEN:-}\nNO=${NO_TOKEN:-x}\n\
                    WAS=$TAG\nWAS=1\nFILE_TOKEN=/run/x\nPATH_OF=$FILE_TOKEN\n";
        let parsed = parse(text, &outside, &mut Room::of(10_000)).unwrap();
        assert_eq!(parsed.secretive.iter().map(String::as_str).collect::<Vec<_>>(), ["DEEP", "OF", "TAG"]);
    }

    #[test]
    fn a_file_that_grows_with_every_line_is_not_read_to_its_end() {
        let outside = |_: &str| None;
        let doubling = format!("A={}\n{}", "x".repeat(100), "A=$A$A\n".repeat(1000));
        let grown = parse(&doubling, &outside, &mut Room::of(1 << 20)).unwrap_err();
        assert!(grown.contains("too large") || grown.contains("longer than"), "{grown}");
    }

    #[test]
    fn a_file_of_variables_is_read_as_compose_does() {
        let text = concat!(
            "\u{feff}# comment\n\nexport A=one two # comment\nB='as $it is # here'\nC=\"tab\\t$A \\$A \\\"q\\\"\"\n",
            "D=${HOME}/x\nE=\nHOME\nNOWHERE\nF=\"one\ntwo\" # after\nG = spaced \nH=a#b\nI=x=y\n"
        );
        let expected = [
            ("A", "one two"),
            ("B", "as $it is # here"),
            ("C", "tab\tone two $A \"q\""),
            ("D", "/home/me/x"),
            ("E", ""),
            ("F", "one\ntwo"),
            ("G", "spaced"),
            ("H", "a#b"),
            ("HOME", "/home/me"),
            ("I", "x=y"),
        ];
        let expected: Vec<_> = expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert_eq!(parsed(text).unwrap(), expected);
    }

    #[test]
    fn what_is_malformed_is_named_by_its_line() {
        for (text, expected) in [
            ("A=1\nno sign\n", "line 2: has no `=`"),
            ("1A=x", "line 1: does not begin with a variable's name"),
            ("A=\"x", "line 1: has a quote that does not end"),
            ("A='x'y", "line 1: has something after the quote's end"),
            ("A=${B", "line 1: has `${` without `}`"),
        ] {
            assert_eq!(parsed(text).unwrap_err(), expected);
        }
    }
}
