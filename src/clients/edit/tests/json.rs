//! JSON, with comments and without.

use super::*;

#[test]
fn beside_others_in_their_indentation() {
    let before =
        "{\n    \"theme\": \"dark\",\n    \"mcpServers\": {\n        \"time\": {\"command\": \"uvx\"}\n    }\n}\n";
    insta::assert_snapshot!(with(Format::Json, before, &server()), @r#"
    {
        "theme": "dark",
        "mcpServers": {
            "time": {"command": "uvx"},
            "mcp-broker": {
                "command": "mcp-broker",
                "args": ["stdio"]
            }
        }
    }
    "#);
}

#[test]
fn with_tabs_and_without_a_line_break_at_the_end() {
    insta::assert_snapshot!(with(Format::Json, "{\n\t\"a\": 1\n}", &server()), @r#"
    {
    →"a": 1,
    →"mcpServers": {
    →→"mcp-broker": {
    →→→"command": "mcp-broker",
    →→→"args": ["stdio"]
    →→}
    →}
    }
    "#);
}

#[test]
fn with_windows_line_breaks_and_a_byte_order_mark() {
    let before =
        "\u{feff}{\r\n  \"mcpServers\": {\r\n    \"a\": {\r\n      \"command\": \"x\"\r\n    }\r\n  }\r\n}\r\n";
    insta::assert_snapshot!(with(Format::Json, before, &server()), @r#"
    BOM{␍
      "mcpServers": {␍
        "a": {␍
          "command": "x"␍
        },␍
        "mcp-broker": {␍
          "command": "mcp-broker",␍
          "args": ["stdio"]␍
        }␍
      }␍
    }␍
    "#);
}

#[test]
fn with_line_breaks_of_both_kinds() {
    let before = "{\r\n  \"a\": 1,\n  \"b\": 2,\r\n  \"mcpServers\": {}\r\n}\n";
    insta::assert_snapshot!(with(Format::Json, before, &server()), @r#"
    {␍
      "a": 1,
      "b": 2,␍
      "mcpServers": {␍
        "mcp-broker": {␍
          "command": "mcp-broker",␍
          "args": ["stdio"]␍
        }␍
      }␍
    }
    "#);
}

#[test]
fn with_comments_and_trailing_commas() {
    let before = "// mine\n{\n  /* first */ \"a\": 1, // one\n  \"mcpServers\": {\n    \"time\": {\"command\": \"uvx\",}, // keep\n    // the end\n  },\n}\n// after\n";
    insta::assert_snapshot!(with(Format::Jsonc, before, &server()), @r#"
    // mine
    {
      /* first */ "a": 1, // one
      "mcpServers": {
        "time": {"command": "uvx",}, // keep
        "mcp-broker": {
          "command": "mcp-broker",
          "args": ["stdio"],
        },
        // the end
      },
    }
    // after
    "#);
}

#[test]
fn with_a_comment_where_the_comma_goes() {
    let before = "{\n  \"mcpServers\": {\n    \"time\": {\"command\": \"uvx\"} // last\n  }\n}\n";
    insta::assert_snapshot!(with(Format::Jsonc, before, &server()), @r#"
    {
      "mcpServers": {
        "time": {"command": "uvx"}, // last
        "mcp-broker": {
          "command": "mcp-broker",
          "args": ["stdio"]
        }
      }
    }
    "#);
}

#[test]
fn in_an_empty_file() {
    insta::assert_snapshot!(with(Format::Json, "", &server()), @r#"
    {
      "mcpServers": {
        "mcp-broker": {
          "command": "mcp-broker",
          "args": ["stdio"]
        }
      }
    }
    "#);
    insta::assert_snapshot!(with(Format::Jsonc, "// nothing yet\n", &server()), @r#"
    // nothing yet
    {
      "mcpServers": {
        "mcp-broker": {
          "command": "mcp-broker",
          "args": ["stdio"]
        }
      }
    }
    "#);
    insta::assert_snapshot!(with(Format::Json, "{}", &server()), @r#"
    {
      "mcpServers": {
        "mcp-broker": {
          "command": "mcp-broker",
          "args": ["stdio"]
        }
      }
    }
    "#);
}

#[test]
fn in_one_line() {
    insta::assert_snapshot!(with(Format::Json, "{\"a\":1,\"mcpServers\":{\"x\":{\"command\":\"y\"}}}", &server()), @r#"
    {"a":1,"mcpServers":{
        "x":{"command":"y"},
        "mcp-broker": {
          "command": "mcp-broker",
          "args": ["stdio"]
        }
      }}
    "#);
}

#[test]
fn in_a_list() {
    let input = item("inputs", "id", &json!({"id": "mcp-broker", "type": "promptString"}));
    insta::assert_snapshot!(with(Format::Jsonc, "{\n  \"inputs\": [\n    {\"id\": \"a\"}, // a\n  ],\n}\n", &input), @r#"
    {
      "inputs": [
        {"id": "a"}, // a
        {
          "id": "mcp-broker",
          "type": "promptString",
        },
      ],
    }
    "#);
}

#[test]
fn an_old_entry_is_changed_and_what_the_user_added_stays() {
    let before = "{\n  \"mcpServers\": {\n    \"mcp-broker\": {\n      // old\n      \"url\": \"http://x/mcp\",\n      \"headers\": {},\n      \"trust\": true\n    }\n  }\n}\n";
    let after = Format::Jsonc.with(before, &[server()]).unwrap();
    insta::assert_snapshot!(after, @r#"
    {
      "mcpServers": {
        "mcp-broker": {
          // old
          "trust": true,
          "command": "mcp-broker",
          "args": ["stdio"]
        }
      }
    }
    "#);
}

#[test]
fn what_is_not_valid_is_refused_with_its_place() {
    let refused = |text: &str| Format::Json.with(text, &[server()]).unwrap_err().to_string();
    insta::assert_snapshot!(refused("{\n  \"a\": 1,\n}"), @"it is not valid: line 3, column 1: trailing comma");
    insta::assert_snapshot!(refused("{\n  // no\n}"), @"it is not valid: line 2, column 3: key must be a string");
    insta::assert_snapshot!(refused("{\"a\": 1"), @"it is not valid: line 1, column 7: EOF while parsing an object");
    insta::assert_snapshot!(refused("[]"), @"it holds something else than the client expects, at its top");
    insta::assert_snapshot!(refused("{\"mcpServers\": []}"), @"it holds something else than the client expects, at `mcpServers`");
    insta::assert_snapshot!(refused("{\"mcpServers\": null}"), @"it holds something else than the client expects, at `mcpServers`");
    insta::assert_snapshot!(refused("{\"mcpServers\": {\"mcp-broker\": 1}}"), @"it holds something else than the client expects, at `mcpServers`");
    insta::assert_snapshot!(refused("{\"mcpServers\": {}, \"mcpServers\": {\"a\": {}}}"), @"it is written in a way that cannot be edited without changing more than the entry of mcp-broker");
}
