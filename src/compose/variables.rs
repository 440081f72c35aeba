//! Compose's variables: `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME-default}`, `${NAME:?message}`, `${NAME?message}`,
//! `${NAME:+other}`, `${NAME+other}`, and `$$` for a dollar sign. What stands in place of a value may have variables too.

/// How deep a default may be in another.
const DEPTH_MAX: usize = 16;

/// Text that a file grows to is bounded: a variable may be there many times.
const TEXT_BYTES_MAX: usize = 256 << 10;

/// Text with its variables filled in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Filled {
    pub(super) text: String,
    /// The variables whose values are in it.
    pub(super) used: Vec<String>,
    /// Those that have no value and no default: empty, as Compose has it.
    pub(super) unset: Vec<String>,
}

/// Fills in `text`.
///
/// # Errors
///
/// A sentence on what is wrong with it.
pub(super) fn fill(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Filled, String> {
    let mut filled = Filled { text: String::with_capacity(text.len()), used: Vec::new(), unset: Vec::new() };
    let rest = append(text, lookup, &mut filled, 0)?;
    debug_assert!(rest.is_empty(), "only a default ends before its text does");
    Ok(filled)
}

/// Appends what `text` stands for. Within braces (`depth` above 0) it ends at their end, and what follows is given back.
fn append<'a>(
    text: &'a str,
    lookup: &dyn Fn(&str) -> Option<String>,
    filled: &mut Filled,
    depth: usize,
) -> Result<&'a str, String> {
    if depth > DEPTH_MAX {
        return Err("has defaults within defaults, too deep".to_owned());
    }
    let mut rest = text;
    loop {
        if filled.text.len() > TEXT_BYTES_MAX {
            return Err(format!("is longer than {TEXT_BYTES_MAX} bytes with its variables filled in"));
        }
        let Some(at) = rest.find(|letter| letter == '$' || (letter == '}' && depth > 0)) else {
            filled.text.push_str(rest);
            return if depth > 0 { Err("has `${` without `}`".to_owned()) } else { Ok("") };
        };
        filled.text.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if rest[at..].starts_with('}') {
            return Ok(after);
        }
        rest = match after.chars().next() {
            Some('$') => {
                filled.text.push('$');
                &after[1..]
            }
            Some('{') => braced(&after[1..], lookup, filled, depth)?,
            Some(letter) if is_first(letter) => {
                let (name, rest) = name_of(after);
                put(name, lookup(name), filled);
                rest
            }
            _ => return Err("has a `$` that begins no variable: write `$$` for a dollar sign".to_owned()),
        };
    }
}

fn braced<'a>(
    text: &'a str,
    lookup: &dyn Fn(&str) -> Option<String>,
    filled: &mut Filled,
    depth: usize,
) -> Result<&'a str, String> {
    let (name, rest) = name_of(text);
    if name.is_empty() {
        return Err("has `${` without a variable's name".to_owned());
    }
    let value = lookup(name);
    if let Some(rest) = rest.strip_prefix('}') {
        put(name, value, filled);
        return Ok(rest);
    }
    let (colon, rest) = rest.strip_prefix(':').map_or((false, rest), |rest| (true, rest));
    let there = value.filter(|value| !colon || !value.is_empty());
    let mut operators = rest.chars();
    let operator = operators.next();
    let rest = operators.as_str();
    // What is not used is looked at all the same, for its end, and misses nothing.
    let is_used = matches!((operator, &there), (Some('-'), None) | (Some('+'), Some(_)));
    let anything: &dyn Fn(&str) -> Option<String> = &|_| Some("x".to_owned());
    let mut other = Filled { text: String::new(), used: Vec::new(), unset: Vec::new() };
    let after = append(rest, if is_used { lookup } else { anything }, &mut other, depth + 1)?;
    match (operator, there) {
        (Some('-' | '?'), Some(value)) => put(name, Some(value), filled),
        (Some('-'), None) | (Some('+'), Some(_)) => {
            filled.text.push_str(&other.text);
            filled.used.extend(other.used);
            filled.unset.extend(other.unset);
        }
        (Some('+'), None) => {}
        (Some('?'), None) => {
            // As it is written: values have no place in what is said of a file that nobody has agreed to.
            let written = &rest[..rest.len() - after.len() - 1];
            let message = if written.is_empty() { "it has to be set" } else { written };
            return Err(format!("needs the variable `{name}`: {message}"));
        }
        _ => return Err(format!("has `${{{name}` with something after it that is none of }} :- - :? ? :+ +")),
    }
    Ok(after)
}

fn put(name: &str, value: Option<String>, filled: &mut Filled) {
    match value {
        Some(value) => {
            filled.text.push_str(&value);
            filled.used.push(name.to_owned());
        }
        None => filled.unset.push(name.to_owned()),
    }
}

fn is_first(letter: char) -> bool {
    letter.is_ascii_alphabetic() || letter == '_'
}

/// The name that `text` begins with, and what follows.
fn name_of(text: &str) -> (&str, &str) {
    if !text.starts_with(is_first) {
        return ("", text);
    }
    let end = text.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "SET" => Some("value".to_owned()),
            "EMPTY" => Some(String::new()),
            "DOLLAR" => Some("$SET".to_owned()),
            _ => None,
        }
    }

    fn text(template: &str) -> String {
        match fill(template, &lookup) {
            Ok(filled) => filled.text,
            Err(problem) => format!("! {problem}"),
        }
    }

    #[test]
    fn variables_are_filled_in_as_compose_does() {
        for (template, expected) in [
            ("plain", "plain"),
            ("$SET-$NONE", "value-"),
            ("a${SET}b", "avalueb"),
            ("${NONE:-default}", "default"),
            ("${EMPTY:-default}|${EMPTY-default}|${NONE-default}", "default||default"),
            ("${SET:+other}|${EMPTY:+other}|${EMPTY+other}|${NONE+other}", "other||other|"),
            ("${NONE:-${EMPTY:-${SET}!}}x", "value!x"),
            ("${SET:?needed}${EMPTY?needed}", "value"),
            ("$$SET $${SET} 5$$", "$SET ${SET} 5$"),
            ("${DOLLAR}", "$SET"),
            ("{\"json\": 1}", "{\"json\": 1}"),
            ("${NONE:-}", ""),
            ("${SET:-${NONE:?not needed}}", "value"),
        ] {
            assert_eq!(text(template), expected, "{template}");
        }
    }

    #[test]
    fn what_is_malformed_or_missing_is_said() {
        for (template, expected) in [
            ("${NONE:?set it to a path}", "! needs the variable `NONE`: set it to a path"),
            ("${NONE?not $SET}", "! needs the variable `NONE`: not $SET"),
            ("${EMPTY:?}", "! needs the variable `EMPTY`: it has to be set"),
            ("${SET", "! has `${` without `}`"),
            ("${SET:-x", "! has `${` without `}`"),
            ("${}", "! has `${` without a variable's name"),
            ("5$", "! has a `$` that begins no variable: write `$$` for a dollar sign"),
            ("${SET!x}", "! has `${SET` with something after it that is none of } :- - :? ? :+ +"),
        ] {
            assert_eq!(text(template), expected, "{template}");
        }
        let deep = format!("{}x{}", "${A:-".repeat(100), "}".repeat(100));
        assert!(text(&deep).starts_with("! "), "{}", text(&deep));
        let large = fill(&"$BIG".repeat(100), &|_| Some("x".repeat(10_000)));
        assert!(large.unwrap_err().contains("longer than"));
    }

    #[test]
    fn what_came_from_elsewhere_is_known() {
        let filled = fill("$SET ${NONE:-$EMPTY} $OTHER", &lookup).unwrap();
        assert_eq!((filled.used, filled.unset), (vec!["SET".to_owned(), "EMPTY".to_owned()], vec!["OTHER".to_owned()]));
    }
}
