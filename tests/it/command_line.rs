//! The command line: what it says, what it refuses, and its exit codes.

use std::{os::unix::fs::PermissionsExt, process::Stdio};

use serde_json::json;

use crate::support::{Era, FixtureCatalog, process::Home};

fn home() -> Home {
    Home::with(&FixtureCatalog::new().server("fixture", &[], &[]))
}

#[tokio::test]
async fn help_says_it_all() {
    insta::assert_snapshot!("help", home().run(&["--help"]).await.ok());
    insta::assert_snapshot!("help_serve", home().run(&["serve", "--help"]).await.ok());
}

#[tokio::test]
async fn secrets_are_kept_and_never_shown() {
    let home = home();
    home.run_with(&["secret", "set", "github.token"], "hunter2-hunter2\n").await.ok();
    assert_eq!(home.run(&["secret", "ls"]).await.ok(), "github.token\n");
    for file in walk(&home.data()) {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"hunter2"), "{}", file.display());
    }
    home.run(&["secret", "rm", "github.token"]).await.ok();
    assert_eq!(home.run(&["secret", "ls"]).await.ok(), "");
    let missing = home.run(&["secret", "rm", "github.token"]).await;
    assert_eq!((missing.code(), missing.err().as_str()), (1, "error: there is no secret `github.token`\n"));
    assert_eq!(home.run_with(&["secret", "set", "empty"], "").await.code(), 1);
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries
        .flat_map(|entry| if entry.path().is_dir() { walk(&entry.path()) } else { vec![entry.path()] })
        .filter(|path| path.is_file())
        .collect()
}

#[tokio::test]
async fn what_is_kept_is_its_owners_alone() {
    let home = home();
    home.run(&["feature", "ls"]).await.ok();
    let mode = |name: &str| std::fs::metadata(home.data().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(""), mode("token"), mode("master.key")), (0o700, 0o600, 0o600));
}

#[tokio::test]
async fn one_data_folder_has_one_broker() {
    let home = home();
    let broker = home.serve().await;
    let second = home.run(&["serve", "--listen", "127.0.0.1:0"]).await;
    assert_eq!(second.code(), 3);
    assert!(second.err().contains("another broker is running"), "{}", second.err());
    assert!(home.run(&["status"]).await.ok().contains("running as process"));
    broker.terminate().await;
    assert!(home.run(&["status"]).await.ok().contains("not running"));
}

#[tokio::test]
async fn asking_for_the_status_never_becomes_the_broker() {
    let home = home();
    std::fs::create_dir_all(home.data()).unwrap();
    std::fs::set_permissions(home.data(), std::fs::Permissions::from_mode(0o700)).unwrap();
    for arguments in [&["status", "--check"][..], &["status"], &["logs", "--follow"]] {
        // A broker that takes one connection and is gone for the next.
        let socket = tokio::net::UnixSocket::new_stream().unwrap();
        socket.bind(home.data().join("broker.sock")).unwrap();
        let _listening = socket.listen(0).unwrap();
        let asked = home.run(arguments).await;
        assert_eq!(asked.code(), 1, "{}", asked.out());
        assert!(asked.err().contains("the broker has stopped answering"), "{}", asked.err());
        std::fs::remove_file(home.data().join("broker.sock")).unwrap();
        assert_eq!(std::fs::read_dir(home.data()).unwrap().count(), 0, "nothing was made");
    }
    assert_eq!(home.run(&["status", "--check"]).await.code(), 1);
}

#[tokio::test]
async fn wrong_settings_are_refused_with_every_problem() {
    let home = home();
    std::fs::create_dir_all(home.data()).unwrap();
    std::fs::write(home.data().join("config.yaml"), "listen: 0.0.0.0:0\nlimits: {sessions_max: 0}\n").unwrap();
    let refused = home.run(&["serve", "--no-auth"]).await;
    assert_eq!(refused.code(), 1);
    assert!(refused.err().contains("--no-auth") && refused.err().contains("sessions_max"), "{}", refused.err());
    std::fs::write(home.data().join("config.yaml"), "servers: [nobody]\n").unwrap();
    let unknown = home.run(&["serve", "--listen", "127.0.0.1:0"]).await;
    assert!(unknown.err().contains("`nobody` is not in the catalog"), "{}", unknown.err());
}

#[tokio::test]
async fn a_session_made_by_command_can_be_used_and_its_history_read() {
    let home = home();
    let broker = home.serve().await;
    let made = home.run(&["session", "new", "--name", "mine", "--server", "fixture"]).await.ok();
    let field = |name: &str| {
        let line = made.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    let client = crate::support::TestClient::http(&field("url:"), Some(&field("token:")), Era::Modern).await;
    client.ok("fixture__echo", json!({"text": "for the record"})).await;
    let history = home.run(&["audit", "--session", "mine"]).await.ok();
    assert!(history.contains("fixture echo") && history.contains("for the record"), "{history}");
    home.run(&["session", "end", "mine"]).await.ok();
    assert_eq!(home.run(&["session", "end", "mine"]).await.code(), 1);
    assert!(home.run(&["audit", "--format", "jsonl"]).await.ok().lines().count() > 3);
    broker.terminate().await;
}

#[tokio::test]
async fn catalogs_are_checked_field_by_field() {
    let home = home();
    let path = home.path().join("bad.yaml");
    std::fs::write(&path, "registry: {a: {image: x, secrets: [{name: key}]}, b: {}}").unwrap();
    let checked = home.run(&["catalog", "validate", path.to_str().unwrap()]).await;
    assert_eq!(checked.code(), 1);
    assert!(checked.out().contains("a: secrets[0]: missing field `env`"), "{}", checked.out());
    let searched = home.run(&["catalog", "search", "time zone"]).await.ok();
    assert!(searched.lines().nth(1).unwrap().starts_with("time "), "{searched}");
}

#[tokio::test]
async fn the_doctor_finds_what_is_there() {
    let report = home().run(&["doctor"]).await;
    assert_eq!(report.code(), 0, "{}", report.out());
    assert!(report.out().contains("ok       data folder"), "{}", report.out());
}

#[tokio::test]
async fn the_database_is_its_owners_alone_in_any_folder() {
    let home = Home::with(&FixtureCatalog::new());
    std::fs::create_dir_all(home.data()).unwrap();
    std::fs::set_permissions(home.data(), PermissionsExt::from_mode(0o755)).unwrap();
    let broker = home.serve().await;
    let modes: Vec<(String, u32)> = std::fs::read_dir(home.data())
        .unwrap()
        .map(|file| file.unwrap())
        .filter(|file| file.file_name().to_string_lossy().starts_with("broker.sqlite"))
        .map(|file| (file.file_name().display().to_string(), file.metadata().unwrap().permissions().mode() & 0o777))
        .collect();
    assert!(modes.len() > 1 && modes.iter().all(|(_, mode)| *mode == 0o600), "{modes:?}");
    broker.terminate().await;
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_is_no_error() {
    let home = Home::with(&FixtureCatalog::new());
    for _ in 0..3 {
        home.run(&["feature", "enable", "code-mode"]).await.ok();
    }
    for format in ["table", "json", "jsonl", "csv"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = home.command(&["audit", "--format", format]);
        let ended = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).output().await.unwrap();
        assert!(ended.status.success(), "{format}: {}", String::from_utf8_lossy(&ended.stderr));
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_secret_that_is_typed_is_not_shown() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let home = Home::with(&FixtureCatalog::new());
    let command = home.command(&["secret", "set", "github.personal_access_token"]);
    let line = command
        .as_std()
        .get_args()
        .fold(command.as_std().get_program().to_str().unwrap().to_owned(), |line, argument| {
            format!("{line} {}", argument.to_str().unwrap())
        });
    // util-linux's: the command has a terminal.
    let mut terminal = tokio::process::Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .envs(command.as_std().get_envs().filter_map(|(name, value)| Some((name, value?))))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (mut typed, mut shown) = (terminal.stdin.take().unwrap(), terminal.stdout.take().unwrap());
    let mut screen = Vec::new();
    while !String::from_utf8_lossy(&screen).contains("is not shown") {
        assert_ne!(shown.read_buf(&mut screen).await.unwrap(), 0, "{}", String::from_utf8_lossy(&screen));
    }
    typed.write_all(b"hunter2-typed\n").await.unwrap();
    shown.read_to_end(&mut screen).await.unwrap();
    assert!(terminal.wait().await.unwrap().success(), "{}", String::from_utf8_lossy(&screen));
    assert!(!String::from_utf8_lossy(&screen).contains("hunter2"));
    assert!(home.run(&["secret", "ls"]).await.ok().contains("github.personal_access_token"));
}
