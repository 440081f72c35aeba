//! Compose's variables: `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME-default}`, `${NAME:?message}`, `${NAME?message}`,
//! `${NAME:+other}`, `${NAME+other}`, and `$$` for a dollar sign. What stands in place of a value may have variables too.

use std::collections::BTreeSet;

use crate::catalog::entry::Piece;

/// How deep a default may be in another.
const DEPTH_MAX: usize = 16;

/// Text that a file grows to is bounded: a variable may be there many times.
const TEXT_BYTES_MAX: usize = 256 << 10;

/// Variables, and text between them, in one text.
const PIECES_MAX: usize = 10_000;

/// What a variable costs beside its value: a file may have a great many that are empty.
pub(super) const VARIABLE_BYTES: usize = 64;

/// What a file may still grow by while it is read: one bound for everything that is made of it.
#[derive(Debug)]
pub(super) struct Room(usize);

impl Room {
    pub(super) const fn of(bytes: usize) -> Self {
        Self(bytes)
    }

    /// Takes room for so many bytes.
    ///
    /// # Errors
    ///
    /// A sentence, when there is none left.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), String> {
        match self.0.checked_sub(bytes) {
            Some(left) => {
                self.0 = left;
                Ok(())
            }
            None => {
                self.0 = 0;
                Err("is too much: the file and what it reads are too large with their variables filled in".to_owned())
            }
        }
    }
}

/// Text with its variables filled in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Filled {
    pub(super) text: String,
    /// The same, with variables by their names.
    pub(super) pieces: Vec<Piece>,
    /// The variables whose values are in it.
    pub(super) used: BTreeSet<String>,
    /// All that it names, whether they have a value or not, also within what is not used: who agrees to it agrees to these.
    pub(super) named: BTreeSet<String>,
    /// The text between variables and within their braces, also where that is not used.
    pub(super) literals: Vec<String>,
    /// Those that have no value and no default: empty, as Compose has it.
    pub(super) unset: BTreeSet<String>,
}

/// Fills in `text`.
///
/// # Errors
///
/// A sentence on what is wrong with it. No value is in it.
pub(super) fn fill(text: &str, lookup: &dyn Fn(&str) -> Option<String>, room: &mut Room) -> Result<Filled, String> {
    room.take(text.len())?;
    let mut filled = Filled::default();
    let rest = append(text, lookup, &mut filled, 0)?;
    debug_assert!(rest.is_empty(), "only a default ends before its text does");
    room.take(filled.text.len() + VARIABLE_BYTES * filled.pieces.len())?;
    Ok(filled)
}

impl Filled {
    fn push(&mut self, text: &str) -> Result<(), String> {
        if self.text.len() + text.len() > TEXT_BYTES_MAX {
            return Err(format!("is longer than {TEXT_BYTES_MAX} bytes with its variables filled in"));
        }
        self.text.push_str(text);
        if !text.is_empty() {
            self.literals.push(text.to_owned());
        }
        match self.pieces.last_mut() {
            _ if text.is_empty() => {}
            Some(Piece::Text(last)) => last.push_str(text),
            _ => self.pieces.push(Piece::Text(text.to_owned())),
        }
        Ok(())
    }

    fn put(&mut self, name: &str, value: Option<String>) -> Result<(), String> {
        self.named.insert(name.to_owned());
        let Some(value) = value else {
            self.unset.insert(name.to_owned());
            return Ok(());
        };
        if self.text.len() + value.len() > TEXT_BYTES_MAX || self.pieces.len() >= PIECES_MAX {
            return Err(format!("is longer than {TEXT_BYTES_MAX} bytes with its variables filled in"));
        }
        self.text.push_str(&value);
        self.pieces.push(Piece::Value(name.to_owned()));
        self.used.insert(name.to_owned());
        Ok(())
    }

    fn append(&mut self, other: Self) -> Result<(), String> {
        if self.text.len() + other.text.len() > TEXT_BYTES_MAX || self.pieces.len() + other.pieces.len() > PIECES_MAX {
            return Err(format!("is longer than {TEXT_BYTES_MAX} bytes with its variables filled in"));
        }
        self.text.push_str(&other.text);
        self.pieces.extend(other.pieces);
        self.used.extend(other.used);
        self.unset.extend(other.unset);
        Ok(())
    }
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
        let Some(at) = rest.find(|letter| letter == '$' || (letter == '}' && depth > 0)) else {
            filled.push(rest)?;
            return if depth > 0 { Err("has `${` without `}`".to_owned()) } else { Ok("") };
        };
        filled.push(&rest[..at])?;
        let after = &rest[at + 1..];
        if rest[at..].starts_with('}') {
            return Ok(after);
        }
        rest = match after.chars().next() {
            Some('$') => {
                filled.push("$")?;
                &after[1..]
            }
            Some('{') => braced(&after[1..], lookup, filled, depth)?,
            Some(letter) if is_first(letter) => {
                let (name, rest) = name_of(after);
                filled.put(name, lookup(name))?;
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
        filled.put(name, value)?;
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
    let mut other = Filled::default();
    let after = append(rest, if is_used { lookup } else { anything }, &mut other, depth + 1)?;
    filled.named.insert(name.to_owned());
    filled.named.append(&mut other.named);
    filled.literals.append(&mut other.literals);
    match (operator, there) {
        (Some('-' | '?'), Some(value)) => filled.put(name, Some(value))?,
        (Some('-'), None) | (Some('+'), Some(_)) => filled.append(other)?,
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
        match fill(template, &lookup, &mut Room::of(1 << 20)) {
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
        let mut room = Room::of(4 << 20);
        let large = |times: usize, room: &mut Room| fill(&"$BIG".repeat(times), &|_| Some("x".repeat(10_000)), room);
        assert!(large(100, &mut room).unwrap_err().contains("longer than"));
        let many = (0..100).map_while(|_| large(25, &mut room).ok()).count();
        assert!((10..20).contains(&many), "all that is filled in has one bound: {many}");
        assert!(large(1, &mut room).unwrap_err().contains("too large"));
    }

    #[test]
    fn what_came_from_elsewhere_is_known() {
        let filled = fill("a $SET ${NONE:-b$EMPTY} $OTHER$$", &lookup, &mut Room::of(1000)).unwrap();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!((filled.used, filled.unset), (names(&["SET", "EMPTY"]), names(&["OTHER"])));
        let (text, value) = (|text: &str| Piece::Text(text.into()), |name: &str| Piece::Value(name.into()));
        let pieces = [text("a "), value("SET"), text(" "), text("b"), value("EMPTY"), text(" $")];
        assert_eq!(filled.pieces, pieces);
    }

    #[test]
    fn what_is_named_does_not_depend_on_what_is_set() {
        for template in ["$A", "${A}", "${A:-x}", "${A:+x}", "${A:-$B}", "${A-${B:+${C:-$D}}}", "${A+${B:-${C-$D}}}"] {
            let named = |lookup: &dyn Fn(&str) -> Option<String>| {
                fill(template, lookup, &mut Room::of(1000)).unwrap().named.into_iter().collect::<String>()
            };
            let all: String = template.chars().filter(char::is_ascii_uppercase).collect();
            for value in [None, Some(String::new()), Some("x".to_owned())] {
                assert_eq!(named(&|_| value.clone()), all, "{template} with {value:?}");
            }
        }
    }
}
