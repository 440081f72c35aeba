//! TOML.

use super::*;

fn table() -> Piece {
    named("mcp_servers", &json!({"command": "mcp-broker", "args": ["stdio"]}))
}

#[test]
fn beside_others_with_their_comments() {
    let before = "# mine\nmodel = \"o3\" # best\n\n[mcp_servers.time] # t\ncommand   = 'uvx'\nargs = [\n  \"a\", # one\n]\n\n[tui]\ntheme = \"x\"\n";
    insta::assert_snapshot!(with(Format::Toml, before, &table()), @r#"
    # mine
    model = "o3" # best

    [mcp_servers.time] # t
    command   = 'uvx'
    args = [
      "a", # one
    ]

    [mcp_servers.mcp-broker]
    command = "mcp-broker"
    args = ["stdio"]

    [tui]
    theme = "x"
    "#);
}

#[test]
fn with_windows_line_breaks_a_byte_order_mark_and_no_end() {
    insta::assert_snapshot!(with(Format::Toml, "\u{feff}model = \"o3\"\r\n[tui]\r\na = 1", &table()), @r#"
    BOMmodel = "o3"␍
    [tui]␍
    a = 1␍
    ␍
    [mcp_servers.mcp-broker]␍
    command = "mcp-broker"␍
    args = ["stdio"]␍
    "#);
}

#[test]
fn in_an_empty_file() {
    insta::assert_snapshot!(with(Format::Toml, "", &table()), @r#"
    [mcp_servers.mcp-broker]
    command = "mcp-broker"
    args = ["stdio"]
    "#);
    insta::assert_snapshot!(with(Format::Toml, "# nothing yet\n", &table()), @r#"
    # nothing yet

    [mcp_servers.mcp-broker]
    command = "mcp-broker"
    args = ["stdio"]
    "#);
}

#[test]
fn in_an_inline_table() {
    insta::assert_snapshot!(with(Format::Toml, "mcp_servers = { a = { command = \"x\" } }\n", &table()), @r#"mcp_servers = { a = { command = "x" } , mcp-broker = { command = "mcp-broker", args = ["stdio"] } }"#);
}

#[test]
fn an_old_entry_is_changed_and_what_the_user_added_stays() {
    let before = "[mcp_servers.mcp-broker]\nurl = \"http://x/mcp\"\nenabled_tools = [\"a\"] # mine\n[mcp_servers.mcp-broker.env]\nA = \"b\"\n";
    insta::assert_snapshot!(Format::Toml.with(before, &[table()]).unwrap(), @r#"
    [mcp_servers.mcp-broker]
    enabled_tools = ["a"] # mine
    command = "mcp-broker"
    args = ["stdio"]
    [mcp_servers.mcp-broker.env]
    A = "b"
    "#);
}

#[test]
fn what_is_not_valid_is_refused_with_its_place() {
    let refused = |text: &str| Format::Toml.with(text, &[table()]).unwrap_err().to_string();
    insta::assert_snapshot!(refused("a = 1\nb = = 2\n"), @"it is not valid: line 2, column 5: extra `=`, expected nothing");
    insta::assert_snapshot!(refused("a = 1\na = 2\n"), @"it is not valid: line 2, column 1: duplicate key");
    insta::assert_snapshot!(refused("mcp_servers = 1\n"), @"it holds something else than the client expects, at `mcp_servers`");
    insta::assert_snapshot!(refused("[[mcp_servers]]\na = 1\n"), @"it holds something else than the client expects, at `mcp_servers`");
}
