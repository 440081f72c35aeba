//! Awkward texts. What is checked of each: the entry is in it, everything else is there in its order, a second time changes
//! nothing, and without the entry it means what it meant.

use serde_json::json;

use super::*;

fn named(container: &'static str, value: &Value) -> Piece {
    Piece { container, key: Key::Name("mcp-broker".to_owned()), value: value.as_object().cloned().unwrap() }
}

fn item(container: &'static str, by: &'static str, value: &Value) -> Piece {
    Piece { container, key: Key::Item { by, is: "mcp-broker".to_owned() }, value: value.as_object().cloned().unwrap() }
}

fn server() -> Piece {
    named("mcpServers", &json!({"command": "mcp-broker", "args": ["stdio"]}))
}

fn extension() -> Piece {
    named("extensions", &json!({"type": "stdio", "cmd": "mcp-broker", "args": ["stdio"], "enabled": true}))
}

fn listed() -> Piece {
    item("mcpServers", "name", &json!({"name": "mcp-broker", "command": "mcp-broker", "args": ["stdio"]}))
}

/// The text with the entry, with what cannot be seen made visible.
fn with(format: Format, before: &str, piece: &Piece) -> String {
    let pieces = std::slice::from_ref(piece);
    let after = match format.with(before, pieces) {
        Ok(after) => after,
        Err(error) => return format!("error: {error}"),
    };
    assert_eq!(format.with(&after, pieces).as_ref(), Ok(&after), "a second time changes nothing");
    let mut rest = after.chars();
    for kept in before.chars().filter(|c| !c.is_whitespace()) {
        assert!(rest.any(|new| new == kept), "{kept:?} is not where it was in {after:?}");
    }
    let without = format.without(&after, pieces).unwrap();
    let meant = |text: &str| piece.trimmed(format.parse(text).unwrap());
    assert_eq!(meant(&without), meant(before));
    after.replace('\r', "␍").replace('\t', "→").replace('\u{feff}', "BOM")
}

mod json_stories {
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
}

mod toml_stories {
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
}

mod yaml_stories {
    use super::*;

    #[test]
    fn beside_others_with_their_comments() {
        let before = "# mine\nGOOSE_MODEL: x # best\nextensions:\n  developer:\n    enabled: true\n    args: [\"a\"]\n  # the end\n\nGOOSE_MODE: auto\n";
        insta::assert_snapshot!(with(Format::Yaml, before, &extension()), @r#"
        # mine
        GOOSE_MODEL: x # best
        extensions:
          developer:
            enabled: true
            args: ["a"]
          mcp-broker:
            type: stdio
            cmd: mcp-broker
            args:
              - stdio
            enabled: true
          # the end

        GOOSE_MODE: auto
        "#);
    }

    #[test]
    fn with_windows_line_breaks_a_byte_order_mark_and_no_end() {
        insta::assert_snapshot!(with(Format::Yaml, "\u{feff}A: 1\r\nextensions:\r\n    a:\r\n        b: 1", &extension()), @"
        BOMA: 1␍
        extensions:␍
            a:␍
                b: 1␍
            mcp-broker:␍
              type: stdio␍
              cmd: mcp-broker␍
              args:␍
                - stdio␍
              enabled: true
        ");
    }

    #[test]
    fn in_an_empty_file() {
        insta::assert_snapshot!(with(Format::Yaml, "", &extension()), @"
        extensions:
          mcp-broker:
            type: stdio
            cmd: mcp-broker
            args:
              - stdio
            enabled: true
        ");
        insta::assert_snapshot!(with(Format::Yaml, "# nothing yet\n", &extension()), @"
        # nothing yet
        extensions:
          mcp-broker:
            type: stdio
            cmd: mcp-broker
            args:
              - stdio
            enabled: true
        ");
        insta::assert_snapshot!(with(Format::Yaml, "extensions:\nA: 1\n", &extension()), @"
        extensions:
          mcp-broker:
            type: stdio
            cmd: mcp-broker
            args:
              - stdio
            enabled: true
        A: 1
        ");
        insta::assert_snapshot!(with(Format::Yaml, "A: 1", &extension()), @"
        A: 1
        extensions:
          mcp-broker:
            type: stdio
            cmd: mcp-broker
            args:
              - stdio
            enabled: true
        ");
    }

    #[test]
    fn in_flow_style() {
        insta::assert_snapshot!(with(Format::Yaml, "extensions: {a: {b: 1}}\nA: 1\n", &extension()), @"
        extensions: {a: {b: 1}, mcp-broker: {type: stdio, cmd: mcp-broker, args: [stdio], enabled: true}}
        A: 1
        ");
        insta::assert_snapshot!(with(Format::Yaml, "extensions: {}\n", &extension()), @"extensions: {mcp-broker: {type: stdio, cmd: mcp-broker, args: [stdio], enabled: true}}");
    }

    #[test]
    fn after_a_text_of_several_lines_and_with_anchors() {
        let before = "x: &a\n  k: v\nextensions:\n  a:\n    b: |\n      one\n\n      two\n  c: *a\n\n\nZ: 1\n";
        insta::assert_snapshot!(with(Format::Yaml, before, &extension()), @"
        x: &a
          k: v
        extensions:
          a:
            b: |
              one

              two
          c: *a
          mcp-broker:
            type: stdio
            cmd: mcp-broker
            args:
              - stdio
            enabled: true


        Z: 1
        ");
    }

    #[test]
    fn in_a_list() {
        insta::assert_snapshot!(with(Format::Yaml, "mcpServers:\n  - name: a\n    command: x # c\n  # end\nmodels: []\n", &listed()), @"
        mcpServers:
          - name: a
            command: x # c
          - name: mcp-broker
            command: mcp-broker
            args:
              - stdio
          # end
        models: []
        ");
        insta::assert_snapshot!(with(Format::Yaml, "mcpServers:\n- name: a\n  command: x\n", &listed()), @"
        mcpServers:
        - name: a
          command: x
        - name: mcp-broker
          command: mcp-broker
          args:
            - stdio
        ");
        insta::assert_snapshot!(with(Format::Yaml, "mcpServers: []\nmodels: []\n", &listed()), @"
        mcpServers: [{name: mcp-broker, command: mcp-broker, args: [stdio]}]
        models: []
        ");
        insta::assert_snapshot!(with(Format::Yaml, "name: x\nmodels:\n  - name: b\n", &listed()), @"
        name: x
        models:
          - name: b
        mcpServers:
          - name: mcp-broker
            command: mcp-broker
            args:
              - stdio
        ");
    }

    #[test]
    fn an_old_entry_is_changed_and_what_the_user_added_stays() {
        let before = "extensions:\n  mcp-broker:\n    type: streamable_http\n    uri: http://x/mcp\n    headers:\n      A: b\n    enabled: false # for now\n    available_tools: []\n  z:\n    a: 1\n";
        insta::assert_snapshot!(Format::Yaml.with(before, &[extension()]).unwrap(), @"
        extensions:
          mcp-broker:
            type: stdio
            enabled: true # for now
            available_tools: []
            cmd: mcp-broker
            args:
              - stdio
          z:
            a: 1
        ");
        let before =
            "mcpServers:\n  - name: mcp-broker\n    url: http://x/mcp\n    connectionTimeout: 3\n  - name: b\n";
        insta::assert_snapshot!(Format::Yaml.with(before, &[listed()]).unwrap(), @"
        mcpServers:
          - name: mcp-broker
            connectionTimeout: 3
            command: mcp-broker
            args:
              - stdio
          - name: b
        ");
    }

    #[test]
    fn what_is_not_valid_is_refused_with_its_place() {
        let refused = |text: &str| Format::Yaml.with(text, &[extension()]).unwrap_err().to_string();
        insta::assert_snapshot!(refused("a: 1\n  b: 2\n"), @"it is not valid: line 2, column 4: mapping values are not allowed in this context");
        insta::assert_snapshot!(refused("a: 1\na: 2\n"), @"it is not valid: line 2, column 1: duplicate mapping key: a");
        insta::assert_snapshot!(refused("a: [1\n"), @"it is not valid: line 1, column 4: unclosed bracket '['");
        insta::assert_snapshot!(refused("- a\n"), @"it holds something else than the client expects, at its top");
        insta::assert_snapshot!(refused("extensions: 3\n"), @"it holds something else than the client expects, at `extensions`");
        insta::assert_snapshot!(refused("a: 1\n---\nb: 2\n"), @"it is not valid: line 3, column 1: multiple YAML documents detected");
    }
}
