//! TypeScript to JavaScript: types become blanks, so that every line and column stays where it was.
//!
//! What is not only types (`enum`, `namespace`, parameter properties) would have to become other code and is refused. A
//! script is always read as TypeScript: JavaScript is that as well, but for a few old forms, which are left to the engine.

use std::sync::mpsc;

use swc_common::{
    GLOBALS, Globals, SourceMap,
    errors::{DiagnosticBuilder, Emitter, HANDLER, Handler},
    sync::Lrc,
};
use swc_ts_fast_strip::{ErrorCode, Mode, Options, operate};

use crate::ScriptError;

/// Around a script, because it is the body of a function.
const BEFORE: &str = "(async function () {\n";
const AFTER: &str = "\n})";

/// A script without its types.
pub(super) enum Stripped {
    Blanked(String),
    /// It is no TypeScript, or none that this parser knows.
    Unreadable(ScriptError),
    /// It has something that cannot be left out.
    NotOnlyTypes(ScriptError),
}

/// Takes the types out of a script.
pub(super) fn blank(source: &str) -> Stripped {
    let (say, said) = mpsc::channel();
    let handler = Handler::with_emitter(true, false, Box::new(First(say)));
    let options = Options { mode: Mode::StripOnly, module: Some(false), ..Options::default() };
    let text = format!("{BEFORE}{source}{AFTER}");
    let stripped = GLOBALS.set(&Globals::new(), || {
        HANDLER.set(&handler, || operate(&Lrc::new(SourceMap::default()), &handler, text, options))
    });
    let error = match stripped {
        Ok(output) => match output.code.strip_prefix(BEFORE).and_then(|code| code.strip_suffix(AFTER)) {
            Some(body) => return Stripped::Blanked(body.to_owned()),
            None => {
                return Stripped::Unreadable(syntax_error(source, "the script is no function's body".to_owned(), None));
            }
        },
        Err(error) => error,
    };
    let (message, offset) = said.try_recv().unwrap_or_else(|_| (error.message.clone(), None));
    let problem = syntax_error(source, message, offset);
    match error.code {
        ErrorCode::UnsupportedSyntax => Stripped::NotOnlyTypes(problem),
        _ => Stripped::Unreadable(problem),
    }
}

/// What the parser complains about, with the offset of where.
struct First(mpsc::Sender<(String, Option<usize>)>);

impl Emitter for First {
    fn emit(&mut self, problem: &mut DiagnosticBuilder<'_>) {
        // A file's first byte is at position 1.
        let offset = problem.span.primary_span().map(|span| span.lo.0.saturating_sub(1) as usize);
        let _ = self.0.send((problem.message(), offset.and_then(|offset| offset.checked_sub(BEFORE.len()))));
    }
}

fn syntax_error(source: &str, message: String, offset: Option<usize>) -> ScriptError {
    let before = offset.map(|offset| &source[..source.floor_char_boundary(offset)]);
    let line = before.map(|before| before.matches('\n').count() as u64 + 1);
    let column = before.map(|before| before.rsplit('\n').next().unwrap_or_default().chars().count() as u64 + 1);
    ScriptError { name: "SyntaxError".to_owned(), message, line, column, stack: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blanked(source: &str) -> String {
        match blank(source) {
            Stripped::Blanked(text) => text,
            Stripped::Unreadable(error) | Stripped::NotOnlyTypes(error) => panic!("{error:?}"),
        }
    }

    #[test]
    fn types_become_blanks_and_everything_else_stays_where_it_is() {
        let source = "const x: number = 1; // ö\ninterface A { a: string }\nconst f = <T,>(y?: T): T => y!;\nreturn f<A>(x as any)";
        let text = blanked(source);
        assert_eq!(text.chars().count(), source.chars().count());
        for kept in ["const x", "= 1; // ö", "=> y", "return f"] {
            assert_eq!(text.find(kept), source.find(kept), "{text}");
        }
        assert!(!text.contains("interface") && !text.contains(": T") && !text.contains("<A>"), "{text}");
    }

    #[test]
    fn javascript_stays_as_it_is() {
        for source in [
            "return await Promise.all([1, 2].map(async (a) => a + 1))",
            "",
            "// only a remark",
            "return /x</.test('<')",
        ] {
            assert_eq!(blanked(source), source);
        }
    }

    #[test]
    fn what_is_not_only_types_is_refused_with_its_place() {
        for (source, line, column) in
            [("enum E { A }", 1, 1), ("let a = 1;\n  class C { constructor(private x: number) {} }", 2, 33)]
        {
            let Stripped::NotOnlyTypes(error) = blank(source) else { panic!("{source}") };
            assert_eq!((error.line, error.column), (Some(line), Some(column)), "{error:?}");
            assert!(error.message.contains("not supported"), "{error:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_left_to_the_engine_with_a_better_error() {
        let Stripped::Unreadable(error) = blank("const a = 1;\nconst b: = 2") else { panic!() };
        assert_eq!((error.line, error.column), (Some(2), Some(10)));
        assert!(matches!(blank("}); (function () {"), Stripped::Unreadable(_) | Stripped::Blanked(_)));
        assert!(matches!(blank("import x from 'y'"), Stripped::Unreadable(_)));
        assert!(matches!(blank("with ({}) {}"), Stripped::Unreadable(_)));
    }
}
