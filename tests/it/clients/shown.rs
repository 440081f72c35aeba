//! What `--print` shows: the broker's own entry, and nothing that anybody else has in a file.

use super::*;

#[tokio::test]
async fn what_would_change_can_be_seen_before_and_without_the_token() {
    let (user, path) = user_of_cursor();
    let before = fs::read_to_string(&path).unwrap();
    let shown = user.client(&["connect", "cursor", "--print"]).await.ok();
    assert!(shown.contains("+    \"mcp-broker\": {") && shown.contains("the rest of it stays as it is"), "{shown}");
    let shown = user.client(&["connect", "cursor", "--http", "--token-in-file", "--dry-run"]).await.ok();
    assert!(shown.contains("Bearer <token>") && !shown.contains(TOKEN), "{shown}");
    assert_eq!(fs::read_to_string(&path).unwrap(), before);
    user.client(&["connect", "zed", "--print"]).await.ok();
    assert!(!user.folder().join(".config/zed").exists(), "showing makes no folder");
}

#[tokio::test]
async fn a_token_that_is_in_the_file_already_is_not_shown_either() {
    let (user, path) = user_of_cursor();
    user.client(&["connect", "cursor", "--http", "--token-in-file"]).await.ok();
    for change in [&["connect", "cursor"][..], &["disconnect", "cursor"]] {
        let shown = user.client(&[change, &["--print"]].concat()).await.ok();
        assert!(shown.contains("\"Bearer <token>\"") && !shown.contains(TOKEN), "{shown}");
    }
    // Nor is one that was another's, or another broker's.
    let old = "a \\\"quoted\\\" token";
    let with = |key: &str, value: &str| {
        let entry = format!("{{\"url\": \"http://127.0.0.1:1/mcp\", \"{key}\": {{\"Authorization\": \"{value}\"}}}}");
        format!("{{\"mcpServers\": {{\n\"mcp-broker\": {entry}\n}}}}\n")
    };
    for (value, said) in [(format!("Bearer {old}"), "\"Bearer <token>\""), (old.to_owned(), "\"<not shown>\"")] {
        fs::write(&path, with("headers", &value)).unwrap();
        let shown = user.client(&["connect", "cursor", "--http", "--print"]).await.ok();
        assert!(shown.contains(said) && !shown.contains("quoted"), "{shown}");
        assert!(shown.contains("Bearer ${env:MCP_BROKER_TOKEN}"), "a reference is shown: {shown}");
    }
}

#[tokio::test]
async fn nothing_is_shown_of_what_else_is_in_the_file() {
    let (user, path) = user_of_cursor();
    let others = r#"// hunter2
  "apiKey": "hunter2", "mcpServers": { // hunter2
    /* hunter2 */ "one": {"url": "https://one.example/mcp?api_key=hunter2", "password": "hunter2"}, // hunter2
    "two": {"command": "npx", "args": ["--api-key", "hunter2"], "env": {"MCP_TRANSPORT": "stdio", "hunter2": "x"}}"#;
    let lines = format!("{{\n  {others} // hunter2\n  }} // hunter2\n}}\n");
    let line = r#"{"apiKey": "hunter2", "mcpServers": {"one": {"url": "https://hunter2@x/mcp"}}, "x": "hunter2"}"#;
    for file in [&lines[..], line] {
        for (way, said) in [(&[][..], "\"stdio\""), (&["--http", "--token-in-file"], "\"Bearer <token>\"")] {
            fs::write(&path, file).unwrap();
            let connect = [&["connect", "cursor"], way].concat();
            let connecting = user.client(&[&connect[..], &["--print"]].concat()).await.ok();
            user.client(&connect).await.ok();
            assert!(fs::read_to_string(&path).unwrap().contains("hunter2"));
            let disconnecting = user.client(&["disconnect", "cursor", "--print"]).await.ok();
            user.client(&["disconnect", "cursor"]).await.ok();
            for (mark, shown) in [("+", connecting), ("-", disconnecting)] {
                assert!(!shown.contains("hunter2") && !shown.contains(TOKEN), "{shown}");
                assert!(shown.contains(&format!("{mark}    \"mcp-broker\": {{")) && shown.contains(said), "{shown}");
            }
        }
    }
}

#[tokio::test]
async fn of_an_entry_of_our_name_only_what_is_ours_is_shown() {
    let (user, path) = user_of_cursor();
    let foreign = r#"{"mcpServers": {"mcp-broker": {
  "command": "hunter2", "args": ["--api-key", "hunter2", "--pin=hunter2"], // hunter2
  "url": "https://x.example/hunter2/mcp", "headers": {"X-Key": "hunter2", "Authorization": "Bearer hunter2"},
  "env": {"KEY": "hunter2", "PIN": 40961}, "password": ["hunter2"], "autoApprove": true
}}}"#;
    for way in [&[][..], &["--http"], &["--http", "--token-in-file"]] {
        fs::write(&path, foreign).unwrap();
        let shown = user.client(&[&["connect", "cursor", "--force", "--print"], way].concat()).await.ok();
        assert!(!shown.contains("hunter2") && !shown.contains("40961") && !shown.contains(TOKEN), "{shown}");
        for said in ["\"KEY\": \"<not shown>\"", "\"autoApprove\": true", "\"Bearer <token>\""] {
            assert!(shown.contains(said), "{said}: {shown}");
        }
        // What is kept of it, and comes back, is not shown either.
        user.client(&[&["connect", "cursor", "--force"], way].concat()).await.ok();
        let shown = user.client(&["disconnect", "cursor", "--print"]).await.ok();
        assert!(!shown.contains("hunter2") && !shown.contains("40961") && !shown.contains(TOKEN), "{shown}");
    }
    // A change of nothing but a token is said to be one.
    fs::write(&path, "{}").unwrap();
    user.client(&["connect", "cursor", "--http", "--token-in-file"]).await.ok();
    let old = fs::read_to_string(&path).unwrap().replace(TOKEN, "hunter2");
    fs::write(&path, old).unwrap();
    let shown = user.client(&["connect", "cursor", "--http", "--token-in-file", "--print"]).await.ok();
    assert!(shown.contains("what changes in it is not shown") && !shown.contains("hunter2"), "{shown}");
}

#[tokio::test]
async fn every_client_is_shown_its_entry_as_it_is_written() {
    for (client, file, _) in CLIENTS {
        let user = User::new();
        for way in [&[][..], &["--http"]] {
            let connect = [&["connect", client], way].concat();
            if client == "claude-desktop" && !way.is_empty() {
                continue;
            }
            let shown = user.client(&[&connect[..], &["--print"]].concat()).await.ok();
            user.client(&connect).await.ok();
            let written = fs::read_to_string(user.folder().join(file)).unwrap().replace(TOKEN, "<token>");
            let lines: Vec<&str> = shown.lines().skip(1).map(|line| line.strip_prefix('+').unwrap()).collect();
            assert_eq!(lines, written.lines().collect::<Vec<_>>(), "{client}");
            user.client(&["disconnect", client]).await.ok();
        }
    }
}

#[tokio::test]
async fn showing_makes_neither_a_token_nor_a_broker() {
    let user = User::new();
    let data = user.folder().join(".local/share/mcp-broker");
    fs::remove_dir_all(&data).unwrap();
    let shown = user.client(&["connect", "claude-code", "--http", "--token-in-file", "--print"]).await.ok();
    assert!(shown.contains("Bearer <token>"), "{shown}");
    assert!(!data.exists());
    // What starts the broker itself needs no token, nor one that is in order.
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("token"), "short").unwrap();
    user.client(&["connect", "claude-code"]).await.ok();
    assert!(!user.client(&["connect", "claude-code", "--http"]).await.err().is_empty());
}
