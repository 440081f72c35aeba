//! Compose files in working folders: read, told, agreed to, and only then servers.

use std::{path::Path, process::Stdio};

use rmcp::model::ClientCapabilities;
use serde_json::json;
use sqlx::{Connection as _, Row as _};
use tokio::{io::AsyncReadExt as _, process::Child};

use crate::support::{
    Era, FixtureCatalog, TestClient, broker::eventually, client::all_capabilities, database, process::Home,
};

const FILE: &str = "services:\n  time:\n    image: mcp/time\n  fs:\n    image: mcp/filesystem\n    command: [/rootfs]\n    volumes:\n      - .:/rootfs\n";

/// A data folder without a container engine, and a working folder beside it.
fn home(file: &str) -> Home {
    let home = Home::with(&FixtureCatalog::new().server("fixture", &[], &[]));
    std::fs::create_dir_all(home.data()).unwrap();
    std::fs::write(home.data().join("config.yaml"), "containers: {engine: none}\n").unwrap();
    std::fs::create_dir_all(work(&home)).unwrap();
    std::fs::write(work(&home).join("gordon-mcp.yml"), file).unwrap();
    home
}

fn work(home: &Home) -> std::path::PathBuf {
    home.path().join("work")
}

/// A client of `mcp-broker stdio`, started in a folder.
struct Working {
    client: TestClient,
    child: Child,
}

impl Working {
    async fn begin(home: &Home, folder: &Path, more: &[&str], era: Era, capabilities: ClientCapabilities) -> Self {
        let mut child = home
            .command(&[&["stdio"][..], more].concat())
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let streams = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
        let client = TestClient::over_streams(streams, era, capabilities).await.unwrap();
        Self { client, child }
    }

    /// One that cannot be asked.
    async fn silent(home: &Home, era: Era) -> Self {
        Self::begin(home, &work(home), &[], era, ClientCapabilities::default()).await
    }

    async fn servers(&self) -> Vec<String> {
        let listed = self.client.ok("mcp-list", json!({})).await.structured_content.unwrap();
        let servers = listed["servers"].as_array().unwrap().iter();
        servers.map(|server| server["name"].as_str().unwrap().to_owned()).collect()
    }

    fn instructions(&self) -> String {
        self.client.peer().peer_info().and_then(|info| info.instructions.clone()).unwrap_or_default()
    }

    /// Ends it. Gives back what it said on standard error.
    async fn end(mut self) -> String {
        self.client.close().await;
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).await.unwrap();
        self.child.wait().await.unwrap();
        said
    }
}

#[tokio::test]
async fn a_file_that_is_found_starts_nothing_until_somebody_agrees() {
    let home = home(FILE);
    let path = work(&home).canonicalize().unwrap().join("gordon-mcp.yml").display().to_string();
    for era in [Era::Legacy, Era::Modern] {
        let working = Working::silent(&home, era).await;
        assert_eq!(working.servers().await, Vec::<String>::new());
        let listed = working.client.call("mcp-list", json!({})).await.to_string();
        for said in [working.instructions(), listed] {
            assert!(said.contains("fs: image mcp/filesystem; command /rootfs; mounts"), "{said}");
            assert!(said.contains(&format!("mcp-broker compose trust {path}")), "{said}");
        }
        let said = working.end().await;
        assert!(said.contains("time: image mcp/time") && said.contains("compose trust"), "{said}");
    }
    let waiting = Working::silent(&home, Era::Legacy).await;
    let agreed = home.run(&["compose", "trust", &path]).await.ok();
    assert!(agreed.contains("time: image mcp/time"), "what is agreed to is shown: {agreed}");
    waiting.client.wait_for("it is told", |told| told.tools_changed > 0).await;
    assert_eq!(waiting.servers().await, ["time", "fs"], "who waits for it has it at once");
    waiting.end().await;
    assert!(home.run(&["compose", "ls"]).await.ok().contains(&path));
    let working = Working::silent(&home, Era::Modern).await;
    assert_eq!(working.servers().await, ["time", "fs"]);
    assert!(!working.instructions().contains("compose"));
    assert_eq!(working.end().await, "");

    // Another file, another consent; the same file again, the same one.
    let changed = FILE.replace("mcp/time", "example/other");
    std::fs::write(&path, &changed).unwrap();
    let working = Working::silent(&home, Era::Legacy).await;
    assert_eq!(working.servers().await, Vec::<String>::new());
    assert!(working.instructions().contains("image example/other"));
    working.end().await;
    std::fs::write(&path, FILE).unwrap();
    std::fs::write(work(&home).join(".env"), "A=1\n").unwrap();
    let working = Working::silent(&home, Era::Legacy).await;
    assert_eq!(working.servers().await, Vec::<String>::new(), "its variables are part of it");
    working.end().await;
    std::fs::remove_file(work(&home).join(".env")).unwrap();
    let working = Working::silent(&home, Era::Legacy).await;
    assert_eq!(working.servers().await, ["time", "fs"]);
    working.end().await;

    home.run(&["compose", "untrust", &path]).await.ok();
    let working = Working::silent(&home, Era::Legacy).await;
    assert_eq!(working.servers().await, Vec::<String>::new());
    working.end().await;
    assert_eq!(home.run(&["compose", "untrust", &path]).await.code(), 1);
    let log = home.run(&["audit", "--kind", "compose", "--limit", "100"]).await.ok();
    assert!(log.contains("trust ") && log.contains("untrust ") && log.contains("use "), "{log}");
}

#[tokio::test]
async fn a_client_that_can_ask_asks_once() {
    let home = home(FILE);
    for (era, file) in [(Era::Legacy, FILE.to_owned()), (Era::Modern, FILE.replace("mcp/time", "example/other"))] {
        std::fs::write(work(&home).join("gordon-mcp.yml"), file).unwrap();
        let folder = work(&home);
        let begin = || Working::begin(&home, &folder, &[], era, all_capabilities());
        let working = begin().await;
        eventually("its servers are there", async || working.servers().await == ["time", "fs"]).await;
        let asked = working.client.told().asked.clone();
        assert!(asked.len() == 1 && asked[0].contains("mounts"), "{asked:?}");
        working.end().await;
        let working = begin().await;
        assert_eq!(working.servers().await, ["time", "fs"]);
        assert_eq!(working.client.told().asked, Vec::<String>::new());
        working.end().await;
    }
}

#[tokio::test]
async fn a_file_that_is_named_is_agreed_to_and_only_this_process_has_it() {
    let home = home(FILE);
    let elsewhere = home.path().join("elsewhere");
    std::fs::create_dir_all(&elsewhere).unwrap();
    let file = work(&home).join("gordon-mcp.yml").display().to_string();
    let silent = ClientCapabilities::default;
    let other = Working::begin(&home, &elsewhere, &[], Era::Legacy, silent()).await;
    let named = ["--compose", &file[..]];
    let working = Working::begin(&home, &elsewhere, &named, Era::Legacy, silent()).await;
    assert_eq!(working.servers().await, ["time", "fs"]);
    assert_eq!(other.servers().await, Vec::<String>::new());
    let no_engine = working.client.exec(None, "time__get_current_time", json!({})).await.to_string();
    assert!(!no_engine.starts_with("ok"), "{no_engine}");
    let again = working.client.call("mcp-remove", json!({"name": "time"})).await;
    assert!(again.is_ok(), "{again}");
    assert_eq!(working.servers().await, ["fs"]);
    // Its session survives the broker that it is attached to.
    let Working { client, mut child } = other;
    child.kill().await.unwrap();
    drop(client);
    eventually("it goes on", async || {
        let listed = working.client.call("mcp-list", json!({})).await;
        listed.is_ok() && listed.structured()["servers"][0]["name"] == "fs"
    })
    .await;
    working.end().await;
    let missing = home.command(&["stdio", "--compose", "nowhere.yml"]).stdin(Stdio::null()).output().await.unwrap();
    assert!(!missing.status.success());
    assert!(String::from_utf8_lossy(&missing.stderr).contains("nowhere.yml"));
}

#[tokio::test]
async fn a_session_with_a_name_has_the_file_it_was_last_given() {
    let home = home(FILE);
    let file = work(&home).join("gordon-mcp.yml");
    let named = ["--session", "mine", "--compose", file.to_str().unwrap()];
    let begin = || Working::begin(&home, home.path(), &named, Era::Legacy, ClientCapabilities::default());
    let working = begin().await;
    assert_eq!(working.servers().await, ["time", "fs"]);
    working.end().await;
    std::fs::write(&file, "services: {other: {image: example/other}, fs: {image: mcp/filesystem}}").unwrap();
    let working = begin().await;
    assert_eq!(working.servers().await, ["fs", "other"]);
    working.end().await;
    let without = Working::begin(&home, home.path(), &["--session", "mine"], Era::Legacy, all_capabilities()).await;
    assert_eq!(without.servers().await, ["fs", "other"], "what a session has is kept with it");
    without.end().await;
}

#[tokio::test]
async fn what_is_not_supported_is_named_and_the_rest_is_used() {
    let file = format!("{FILE}    ports: [\"80:80\"]\n  built:\n    build: .\n");
    let home = home(&file);
    let path = work(&home).join("gordon-mcp.yml").display().to_string();
    let checked = home.run(&["compose", "check", &path]).await;
    assert_eq!(checked.code(), 1);
    insta::assert_snapshot!(checked.err(), @r"
    warning: line 9: services.fs.ports: is left out: nothing is published: servers are spoken to over standard input and output
    error: line 11: services.built.build: is not supported: nothing is built here: build the image and name it in `image`
    ");
    let working =
        Working::begin(&home, home.path(), &["--compose", &path], Era::Legacy, ClientCapabilities::default()).await;
    assert_eq!(working.servers().await, ["time", "fs"]);
    let said = working.end().await;
    assert!(said.contains("services.built.build: is not supported"), "{said}");
    let mut refused = home.starting_at("127.0.0.1:0", &["--compose", &path]);
    assert!(!refused.wait().await.unwrap().success(), "a server for everybody is as the file says, or not at all");

    // What cannot be read at all keeps nobody from working, unless it was named.
    std::fs::write(&path, "services: [").unwrap();
    let working = Working::silent(&home, Era::Legacy).await;
    assert_eq!(working.servers().await, Vec::<String>::new());
    let said = working.end().await;
    assert!(said.contains("the Compose file in this folder is left alone"), "{said}");
}

/// Looks at what is kept, or changes what may be.
async fn kept(home: &Home, sql: &'static str) -> i64 {
    let mut connection = database(&home.data()).await;
    let found = sqlx::query(sql).fetch_optional(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    found.map_or(0, |row| row.get(0))
}

const KEYED: &str = "services:\n  one:\n    image: example/one\n    command: [\"--token=${TOKEN}\"]\n  two:\n    image: example/two\n    environment: [TOKEN]\n";

#[tokio::test]
async fn a_service_that_is_gone_takes_its_secrets_along_and_none_is_kept_in_the_open() {
    let home = home(KEYED).variable("TOKEN", "hunter2-hunter2");
    let file = work(&home).join("gordon-mcp.yml");
    let named = ["--session", "mine", "--compose", file.to_str().unwrap()];
    let begin = || Working::begin(&home, home.path(), &named, Era::Legacy, ClientCapabilities::default());
    let working = begin().await;
    assert_eq!(working.servers().await, ["one", "two"]);
    working.end().await;
    assert_eq!(kept(&home, "SELECT count(*) FROM secrets").await, 2);
    let open = "SELECT count(*) FROM session_compose WHERE definition LIKE '%hunter2%'";
    assert_eq!(kept(&home, open).await, 0, "a command line is kept without its values");
    std::fs::write(&file, "services: {two: {image: example/two, environment: [TOKEN]}}").unwrap();
    let working = begin().await;
    assert_eq!(working.servers().await, ["two"]);
    working.end().await;
    assert_eq!(kept(&home, "SELECT count(*) FROM secrets WHERE name = 'two:TOKEN'").await, 1);
    assert_eq!(kept(&home, "SELECT count(*) FROM secrets").await, 1);
}

#[tokio::test]
async fn a_file_that_cannot_be_kept_changes_nothing_and_goes_on_waiting() {
    let home = home(KEYED).variable("TOKEN", "hunter2-hunter2");
    let path = work(&home).join("gordon-mcp.yml").display().to_string();
    let working = Working::silent(&home, Era::Legacy).await;
    assert_eq!(working.servers().await, Vec::<String>::new());
    let full = "CREATE TRIGGER full BEFORE INSERT ON session_servers WHEN new.server = 'two'
                BEGIN SELECT RAISE(ABORT, 'disk full'); END";
    kept(&home, full).await;
    home.run(&["compose", "trust", &path]).await.ok();
    assert_eq!(working.servers().await, Vec::<String>::new());
    for rows in ["SELECT count(*) FROM session_compose", "SELECT count(*) FROM secrets"] {
        assert_eq!(kept(&home, rows).await, 0, "{rows}");
    }
    assert!(working.client.call("mcp-list", json!({})).await.to_string().contains("compose trust"));
    kept(&home, "DROP TRIGGER full").await;
    home.run(&["compose", "trust", &path]).await.ok();
    assert_eq!(working.servers().await, ["one", "two"], "it is taken when it can be");
    working.end().await;
}

#[tokio::test]
async fn nobody_is_asked_about_what_does_not_fit_into_the_question() {
    let long = FILE.replace("[/rootfs]", &format!("[{}, --and-this]", "x".repeat(2000)));
    let home = home(&long);
    let path = work(&home).join("gordon-mcp.yml").display().to_string();
    for era in [Era::Legacy, Era::Modern] {
        let working = Working::begin(&home, &work(&home), &[], era, all_capabilities()).await;
        let listed = working.client.call("mcp-list", json!({})).await.to_string();
        assert!(
            listed.contains("[…]") && listed.contains("That is not all of it: `mcp-broker compose check"),
            "{listed}"
        );
        assert_eq!(working.servers().await, Vec::<String>::new());
        assert_eq!(working.client.told().asked, Vec::<String>::new());
        working.end().await;
    }
    for command in ["check", "trust"] {
        let shown = home.run(&["compose", command, &path]).await.ok();
        assert!(shown.contains(" --and-this; mounts "), "{shown}");
    }
}

#[tokio::test]
async fn nobody_is_asked_about_a_path_without_where_it_leads() {
    let home = home("services: {a: {image: x, volumes: [\"${DIR}:/srv\"]}}");
    std::fs::write(work(&home).join(".env"), "DIR=/srv\n").unwrap();
    for era in [Era::Legacy, Era::Modern] {
        let working = Working::begin(&home, &work(&home), &[], era, all_capabilities()).await;
        let listed = working.client.call("mcp-list", json!({})).await.to_string();
        assert!(listed.contains("mounts ${DIR}:/srv, writable"), "{listed}");
        assert!(listed.contains("That is not all of it: `mcp-broker compose check"), "{listed}");
        assert_eq!(working.client.told().asked, Vec::<String>::new());
        working.end().await;
    }
    let path = work(&home).join("gordon-mcp.yml").display().to_string();
    for command in ["check", "trust"] {
        let shown = home.run(&["compose", command, &path]).await.ok();
        assert!(shown.contains("\n  a: that mounts /srv at /srv\n"), "{shown}");
    }
}

#[tokio::test]
async fn an_offer_that_is_too_large_is_left_out_and_says_so() {
    let home = home("services: {a: {image: x, env_file: [large.env]}}");
    // In JSON each of these is six bytes.
    let lines: String = (0..15).map(|at| format!("V{at}='{}'\n", "\u{1}".repeat(60_000))).collect();
    std::fs::write(work(&home).join("large.env"), lines).unwrap();
    let working = Working::silent(&home, Era::Legacy).await;
    assert_eq!(working.servers().await, Vec::<String>::new());
    let said = working.end().await;
    assert!(said.contains("is left alone") && said.contains("bytes with the variables of its services"), "{said}");
    let path = work(&home).join("gordon-mcp.yml").display().to_string();
    for command in ["check", "trust"] {
        let refused = home.run(&["compose", command, &path]).await;
        assert!(refused.code() == 1 && refused.err().contains("are the most"), "{}", refused.err());
    }
    assert!(!home.run(&["compose", "ls"]).await.ok().contains(&path), "what is never used is not agreed to");
    let named = ["stdio", "--compose", "gordon-mcp.yml"];
    let refused = home.command(&named).current_dir(work(&home)).stdin(Stdio::null()).output().await.unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("are the most"));
}

#[tokio::test]
async fn the_operators_rules_and_everybodys_servers() {
    let home = home(FILE);
    let file = work(&home).join("gordon-mcp.yml").display().to_string();
    let broker = home.serve_with("127.0.0.1:0", &["--compose", &file]).await;
    let client = broker.connect(Era::Legacy).await;
    let listed = client.ok("mcp-list", json!({})).await.structured_content.unwrap();
    assert_eq!((&listed["servers"][0]["name"], &listed["servers"][0]["fixed"]), (&json!("time"), &json!(true)));
    client.close().await;
    broker.terminate().await;

    // A file of as many services as a session may have takes the place of another one.
    std::fs::write(
        home.data().join("config.yaml"),
        "containers: {engine: none}\nlimits: {servers_per_session_max: 2}\n",
    )
    .unwrap();
    let full = ["--session", "full", "--compose", &file[..]];
    let begin = || Working::begin(&home, home.path(), &full, Era::Legacy, ClientCapabilities::default());
    begin().await.end().await;
    std::fs::write(&file, "services: {three: {image: x}, four: {image: x}}").unwrap();
    let working = begin().await;
    assert_eq!(working.servers().await, ["three", "four"]);
    working.end().await;
    std::fs::write(&file, FILE).unwrap();

    let rules = "containers: {engine: none}\ncatalog: {deny: {servers: [fs]}}\n";
    std::fs::write(home.data().join("config.yaml"), rules).unwrap();
    let named = ["--compose", &file[..]];
    let working = Working::begin(&home, home.path(), &named, Era::Legacy, ClientCapabilities::default()).await;
    assert_eq!(working.servers().await, ["time"]);
    let said = working.end().await;
    assert!(said.contains("fs: the operator does not allow this server"), "{said}");

    // The same is told by a process that comes to a broker that is there; and no rule lets a container see the broker.
    let broker = home.serve().await;
    let working = Working::begin(&home, home.path(), &named, Era::Legacy, ClientCapabilities::default()).await;
    assert_eq!(working.servers().await, ["time"]);
    let said = working.end().await;
    assert!(said.contains("fs: the operator does not allow this server"), "{said}");
    // Who waits for somebody to agree has what the rules leave, and who agrees is told of the rest.
    let waiting = Working::silent(&home, Era::Legacy).await;
    let agreed = home.run(&["compose", "trust", &file]).await;
    assert!(agreed.err().contains("left out: fs: the operator does not allow this server"), "{}", agreed.err());
    assert_eq!(waiting.servers().await, ["time"]);
    waiting.end().await;
    let data = home.data().display().to_string();
    std::fs::write(&file, format!("services: {{spy: {{image: x, volumes: [\"{data}:/x:ro\"]}}}}")).unwrap();
    let working = Working::begin(&home, home.path(), &named, Era::Legacy, ClientCapabilities::default()).await;
    assert_eq!(working.servers().await, Vec::<String>::new());
    let said = working.end().await;
    assert!(said.contains(&format!("spy: a container never sees {data}")), "{said}");
    broker.terminate().await;
}
