//! YAML.

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
    let before = "mcpServers:\n  - name: mcp-broker\n    url: http://x/mcp\n    connectionTimeout: 3\n  - name: b\n";
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
