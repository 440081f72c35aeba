//! Servers in containers, against a real engine. `make test-docker` sets the engine, the images and the registry up.

mod closed_network;
mod compose;
mod crowd;
mod engine;
mod per_call;
mod podman;
mod private_engine;
mod real_images;
mod signed;
mod trouble;

use std::process::Command;

use http::Method;
use serde_json::{Value, json};

use self::engine::{all_is_gone, docker, engine, left_of_sessions, networks};
use crate::support::{Era, FixtureCatalog, TestBroker, broker::eventually, client::text_of, process::Home};

const IMAGE: &str = "mcp-broker-test/fixture:1";

fn catalog() -> FixtureCatalog {
    let config = "    config:\n      - {name: C, type: object, properties: {paths: {type: array, items: {type: string}}}}\n    env: [{name: WORD, value: hunter}]\n    secrets: [{name: box.key, env: BOX_KEY}]";
    FixtureCatalog::new()
        .image("box", IMAGE, "")
        .image("keyed", IMAGE, config)
        .image("offline", IMAGE, "    disableNetwork: true")
        .image("bound", IMAGE, "    volumes: [\"{{bound.paths|volume|into}}\"]\n    config:\n      - {name: C, type: object, properties: {paths: {type: array, items: {type: string}}}, required: [paths]}")
        .image("kept", IMAGE, "    volumes: [\"notes:/notes\"]")
        .image("unknown", "mcp-broker-test/does-not-exist:1", "")
        .image("no-server", "mcp-broker-test/no-server:1", "")
        .image("elsewhere", "mcp-broker-test/elsewhere:1", "")
        .image("exits", IMAGE, "    env: [{name: FIXTURE_EXIT_AT_START, value: 137}]")
        .image("stubborn", IMAGE, "    env: [{name: FIXTURE_IGNORE_EOF, value: 1}, {name: FIXTURE_IGNORE_TERM, value: 1}]")
        .image("banner", IMAGE, "    env: [{name: FIXTURE_GARBAGE_START, value: 1}]")
}

#[tokio::test]
async fn a_container_is_added_used_and_removed_with_all_it_had() {
    let Some(_engine) = engine().await else { return };
    let broker = TestBroker::with(catalog()).containers(|_| ()).start().await;
    let client = broker.connect(Era::Modern).await;
    let added = client.ok("mcp-add", json!({"name": "box"})).await.structured_content.unwrap();
    let handle = added["session"].as_str().unwrap().to_owned();
    let exec = async |tool: &str, arguments: Value| client.exec(Some(&handle), tool, arguments).await;
    assert!(exec("box__echo", json!({"text": "from a container"})).await.to_string().contains("from a container"));

    let id = docker(&["ps", "--quiet", "--filter", "label=mcp-broker.server=box"]);
    let inspected: Value = serde_json::from_str(&docker(&["inspect", &id])).unwrap();
    let host = &inspected[0]["HostConfig"];
    assert_eq!(host["CapDrop"], json!(["ALL"]));
    assert_eq!(host["SecurityOpt"], json!(["no-new-privileges"]));
    assert_eq!((&host["Init"], &host["Privileged"]), (&json!(true), &json!(false)));
    assert_eq!(host["NanoCpus"], 1_000_000_000);
    assert_eq!((&host["Memory"], &host["PidsLimit"]), (&json!(2_147_483_648_u64), &json!(256)));
    assert_eq!(inspected[0]["Config"]["Labels"]["mcp-broker.session"], handle);

    client.ok("mcp-remove", json!({"name": "box", "session": handle})).await;
    eventually("the container is gone", async || {
        docker(&["ps", "--all", "--quiet", "--filter", "label=mcp-broker.folder"]).is_empty()
    })
    .await;
    broker.rest(Method::DELETE, &format!("/v1/sessions/{handle}"), None).await;
    eventually("nothing of it is left", async || left_of_sessions().is_empty()).await;
    broker.stop().await;
}

#[tokio::test]
async fn secrets_reach_the_container_and_nothing_else_shows_them() {
    let Some(_engine) = engine().await else { return };
    let broker = TestBroker::with(catalog()).containers(|_| ()).start().await;
    let client = broker.connect(Era::Legacy).await;
    client.ok("mcp-add", json!({"name": "keyed", "config": {"box.key": "hunter2-hunter2"}})).await;
    let seen = client.ok("keyed__env", json!({"names": ["BOX_KEY", "WORD", "MCP_BROKER_DATA_DIR"]})).await;
    let seen = text_of(&seen);
    assert!(seen.contains("hunter2-hunter2") && seen.contains("WORD"), "{seen}");
    let (_, records) = broker.rest(Method::GET, "/v1/audit?limit=1000", None).await;
    assert!(!records.to_string().contains("hunter2"), "{records}");
    let processes = Command::new("ps").args(["-eo", "args"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&processes.stdout).contains("hunter2"));
    broker.stop().await;
    assert_eq!(docker(&["ps", "--all", "--quiet", "--filter", "label=mcp-broker.folder"]), "");
}

#[tokio::test]
async fn what_cannot_run_says_why() {
    let Some(engine) = engine().await else { return };
    let registry = &engine.registry;
    let absent = catalog().image("absent", &format!("{registry}/nothing:1"), "");
    let broker = TestBroker::with(absent).containers(|_| ()).start().await;
    let client = broker.connect(Era::Legacy).await;
    let refusal = async |name: &str| {
        let outcome = client.call("mcp-add", json!({"name": name})).await;
        assert!(!outcome.is_ok(), "{name}: {outcome}");
        outcome.to_string()
    };
    let said = refusal("absent").await;
    assert!(said.contains("there is no image"), "{said}");
    let said = refusal("no-server").await;
    assert!(said.contains("exited with code 0"), "{said}");
    let said = refusal("elsewhere").await;
    assert!(said.contains("is for linux/s390x"), "{said}");
    let said = refusal("exits").await;
    assert!(said.contains("code 137"), "{said}");
    assert!(client.server_tools().await.is_empty());
    eventually("no container is left", async || {
        docker(&["ps", "--all", "--quiet", "--filter", "label=mcp-broker.folder"]).is_empty()
    })
    .await;
    broker.stop().await;
}

#[tokio::test]
async fn an_image_is_pulled_once_with_progress_and_may_be_refused() {
    let Some(engine) = engine().await else { return };
    let registry = &engine.registry;
    let image = format!("{registry}/fixture:1");
    let catalog = || FixtureCatalog::new().image("far", &image, "");
    docker(&["rmi", "--force", &image]);
    let broker = TestBroker::with(catalog())
        .containers(|settings| settings.pull = mcp_broker::config::Pull::Never)
        .start()
        .await;
    let client = broker.connect(Era::Legacy).await;
    let refused = client.call("mcp-add", json!({"name": "far"})).await.to_string();
    assert!(refused.contains("switched pulling off"), "{refused}");
    broker.stop().await;

    let broker = TestBroker::with(catalog()).containers(|_| ()).start().await;
    let (one, other) = (broker.connect(Era::Legacy).await, broker.connect(Era::Legacy).await);
    tokio::join!(one.add("far"), other.add("far"));
    let told = one.told().progress.len() + other.told().progress.len();
    assert!(told > 0, "a pull tells how far it is");
    one.ok("far__echo", json!({"text": "pulled"})).await;
    let (_, log) = broker.rest(Method::GET, "/v1/audit?kind=pull", None).await;
    let pulls = log["records"].as_array().unwrap();
    assert!(pulls.len() == 1 && pulls[0]["name"] == image && pulls[0]["status"] == "success", "{log}");
    broker.stop().await;
}

#[tokio::test]
async fn images_are_pulled_ahead_and_known_servers_are_added_at_once() {
    let Some(engine) = engine().await else { return };
    let image = format!("{}/fixture:1", engine.registry);
    docker(&["rmi", "--force", &image]);
    let absent = format!("{}/nothing:1", engine.registry);
    let process = FixtureCatalog::new().server("process", &[], &[]);
    let home = Home::with(&process.image("far", &image, "").image("absent", &absent, ""));
    let catalog = home.path().join("fixtures.yaml").display().to_string();
    let pull = async |names: &[&str]| home.run(&[&["pull", "--catalog", &catalog][..], names].concat()).await;
    let pulled = pull(&["far", "process"]).await;
    assert!(pulled.err().contains("process does not run in a container"), "{}", pulled.err());
    assert_eq!(pulled.ok(), format!("far: {image} is here\n"));
    docker(&["image", "inspect", &image]);
    let some = pull(&["absent", "far"]).await;
    assert_eq!(some.code(), 1);
    assert!(some.err().contains("absent: there is no image"), "{}", some.err());
    let unknown = pull(&["faar"]).await;
    assert!(unknown.err().contains("there is no server `faar`"), "{}", unknown.err());

    std::fs::create_dir_all(home.data()).unwrap();
    std::fs::write(home.data().join("config.yaml"), json!({"catalogs": [catalog]}).to_string()).unwrap();
    home.run(&["profile", "create", "ahead", "--server", "far", "--server", "process"]).await.ok();
    docker(&["rmi", "--force", &image]);
    assert_eq!(home.run(&["pull", "--profile", "ahead"]).await.ok(), format!("far: {image} is here\n"));
    docker(&["image", "inspect", &image]);
    let unknown = home.run(&["pull", "--profile", "behind"]).await;
    assert!(unknown.code() == 1 && unknown.err().contains("there is no profile `behind`"), "{}", unknown.err());

    // Nothing is left to pull, and what one session learned answers the next one.
    let broker = home.serve_with("127.0.0.1:0", &["--pull", "never"]).await;
    let (one, other) = (broker.connect(Era::Legacy).await, broker.connect(Era::Legacy).await);
    assert_eq!(one.add("far").await["state"], "ready");
    one.ok("far__echo", json!({"text": "one"})).await;
    assert_eq!(other.add("far").await["state"], "starting");
    other.ok("far__echo", json!({"text": "other"})).await;
    assert_eq!(broker.terminate().await, 0);
    all_is_gone();
}

#[tokio::test]
async fn only_folders_the_operator_allows_are_mounted() {
    let Some(_engine) = engine().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let allowed = folder.path().canonicalize().unwrap();
    let broker =
        TestBroker::with(catalog()).containers(|settings| settings.allowed_paths = vec![allowed.clone()]).start().await;
    let client = broker.connect(Era::Legacy).await;
    let other = tempfile::tempdir().unwrap();
    let other = other.path().display().to_string();
    let refused = [
        ("/etc", "never sees"),
        ("/root", "never sees a whole home folder"),
        (&other, "is not to see"),
        ("/nowhere", "there is no"),
    ];
    for (path, why) in refused {
        let refused = client.call("mcp-add", json!({"name": "bound", "config": {"paths": [path]}})).await.to_string();
        assert!(refused.contains(why), "{refused}");
    }
    client.ok("mcp-add", json!({"name": "bound", "config": {"paths": [allowed]}})).await;
    let id = docker(&["ps", "--quiet", "--filter", "label=mcp-broker.server=bound"]);
    let inspected: Value = serde_json::from_str(&docker(&["inspect", &id])).unwrap();
    assert_eq!(inspected[0]["Mounts"][0]["RW"], false);
    broker.stop().await;
}

#[tokio::test]
async fn a_container_that_is_killed_fails_its_call_and_comes_back() {
    let Some(_engine) = engine().await else { return };
    let broker = TestBroker::with(catalog()).containers(|_| ()).start().await;
    let client = broker.connect(Era::Legacy).await;
    for name in ["stubborn", "banner"] {
        client.add(name).await;
    }
    let hangs = client.call("stubborn__slow", json!({"ms": 60_000, "steps": 600}));
    let kills = async {
        client.wait_for("the call is under way", |told| !told.progress.is_empty()).await;
        docker(&["kill", &docker(&["ps", "--quiet", "--filter", "label=mcp-broker.server=stubborn"])]);
    };
    let (outcome, ()) = tokio::join!(hangs, kills);
    assert!(outcome.to_string().contains("code 137: it was killed"), "{outcome}");
    client.ok("stubborn__echo", json!({"text": "again"})).await;
    client.ok("banner__echo", json!({"text": "beside"})).await;
    broker.stop().await;
    assert_eq!(docker(&["ps", "--all", "--quiet", "--filter", "label=mcp-broker.folder"]), "");
}

#[tokio::test]
async fn what_a_session_keeps_in_a_volume_is_its_own_and_ends_with_it() {
    let Some(_engine) = engine().await else { return };
    let broker = TestBroker::with(catalog()).containers(|_| ()).start().await;
    let (one, other) = (broker.connect(Era::Legacy).await, broker.connect(Era::Legacy).await);
    for client in [&one, &other] {
        client.add("kept").await;
        client.ok("kept__pid", json!({})).await;
    }
    let volumes = docker(&["volume", "ls", "--quiet", "--filter", "label=mcp-broker.folder"]);
    assert_eq!(volumes.lines().count(), 2, "{volumes}");
    let (_, sessions) = broker.rest(Method::GET, "/v1/sessions", None).await;
    for session in sessions["sessions"].as_array().unwrap() {
        broker.rest(Method::DELETE, &format!("/v1/sessions/{}", session["id"].as_str().unwrap()), None).await;
    }
    eventually("nothing of them is left", async || left_of_sessions().is_empty()).await;
    broker.stop().await;
}

#[tokio::test]
async fn twenty_containers_of_a_killed_broker_are_removed_when_it_starts_again() {
    let Some(_engine) = engine().await else { return };
    let home = Home::with(&catalog());
    let broker = home.serve().await;
    let clients = futures_util::future::join_all((0..10).map(|_| broker.connect(Era::Legacy))).await;
    futures_util::future::join_all(clients.iter().map(async |client| {
        for name in ["box", "offline"] {
            client.add(name).await;
            client.ok(&format!("{name}__pid"), json!({})).await;
        }
    }))
    .await;
    let running = docker(&["ps", "--quiet", "--filter", "label=mcp-broker.folder"]);
    let running: Vec<&str> = running.lines().collect();
    assert_eq!(running.len(), 20);
    let pids = docker(&[&["inspect", "--format", "{{.State.Pid}}"], &running[..]].concat());
    let alive = || {
        let command = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        pids.lines().filter(|pid| command(pid).contains("/fixture-server")).count()
    };
    assert_eq!(alive(), 20);
    let bystander = docker(&["run", "--detach", "--interactive", "--label", "mcp-broker.folder=other", IMAGE]);
    broker.kill().await;
    assert_eq!(alive(), 20, "nobody has removed them yet");
    let broker = home.serve().await;
    let containers = || docker(&["ps", "--all", "--quiet", "--no-trunc", "--filter", "label=mcp-broker.folder"]);
    eventually("they are gone, and nobody else's", async || {
        containers() == bystander && networks().is_empty() && alive() == 0
    })
    .await;
    docker(&["rm", "--force", &bystander]);
    assert_eq!(broker.terminate().await, 0);
    all_is_gone();
}
