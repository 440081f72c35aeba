//! Workers that are killed, that cannot be had, and that nobody needs any more.

use std::{os::unix::fs::symlink, path::Path};

use mcp_broker::config::CodeModeSettings;
use rmcp::{
    model::{CallToolRequest, CallToolRequestParams, ClientRequest},
    service::PeerRequestOptions,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::{
    scripts::{catalog, coder, script},
    support::{
        TestBroker,
        broker::eventually,
        client::object,
        process::{Home, program},
    },
};

/// A way to the program that is this test's own, by which its workers are known.
fn own_program(settings: &mut CodeModeSettings, folder: &Path) {
    let link = folder.join("own-broker");
    symlink(program(), &link).unwrap();
    settings.program = Some(link);
}

/// Workers that were started by that way.
fn workers(folder: &Path) -> Vec<Pid> {
    let link = folder.join("own-broker").display().to_string();
    let is_own = |process: &Path| {
        std::fs::read_to_string(process.join("cmdline")).is_ok_and(|line| line.starts_with(&format!("{link}\0")))
    };
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|process| is_own(&process.path()))
        .filter_map(|process| Pid::from_raw(process.file_name().to_str()?.parse().ok()?))
        .collect()
}

#[tokio::test]
async fn a_worker_that_is_killed_fails_its_script_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let broker = TestBroker::with(catalog()).code_mode(|settings| own_program(settings, folder.path())).start().await;
    let client = coder(&broker).await;
    let kill = async || {
        eventually("the script has called its tool", async || {
            let open = broker.store().open_audit_records().await.unwrap();
            open.len() > 1
        })
        .await;
        for worker in workers(folder.path()) {
            kill_process(worker, Signal::KILL).unwrap();
        }
    };
    let (outcome, ()) = tokio::join!(script(&client, "await one.slow({ms: 60000, steps: 1}); return 1"), kill());
    assert_eq!((&outcome["status"], &outcome["error"]["name"]), (&json!("error"), &json!("WorkerError")), "{outcome}");
    assert!(outcome["error"]["message"].as_str().unwrap().contains("killed"), "{outcome}");
    eventually("the call of the script has ended with it", async || {
        broker.audit().await.contains(&"slow cancelled".to_owned())
    })
    .await;

    eventually("a worker waits for the next script", async || !workers(folder.path()).is_empty()).await;
    for worker in workers(folder.path()) {
        kill_process(worker, Signal::KILL).unwrap();
    }
    assert_eq!(script(&client, "return (await one.add({a: 1, b: 2})).sum").await["result"], 3);
    broker.stop().await;
    assert!(workers(folder.path()).is_empty());
}

#[tokio::test]
async fn without_a_worker_the_error_says_so_and_the_next_script_runs_when_there_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let program_path = folder.path().join("own-broker");
    let settings = |settings: &mut CodeModeSettings| settings.program = Some(program_path.clone());
    let broker = TestBroker::with(catalog()).code_mode(settings).start().await;
    let client = coder(&broker).await;
    let gone = client.call("code-mode-x", json!({"script": "return 1"})).await.to_string();
    assert!(gone.contains("could not start a worker") && gone.contains("No such file"), "{gone}");
    assert!(gone.contains("mcp-broker doctor"), "{gone}");

    // Something that is no worker: it ends, or says what a worker would not.
    for not_a_worker in ["/bin/true", "/bin/echo"] {
        symlink(not_a_worker, &program_path).unwrap();
        let wrong = client.call("code-mode-x", json!({"script": "return 1"})).await.to_string();
        assert!(wrong.contains("the worker for the script did not start, and nothing was run"), "{wrong}");
        std::fs::remove_file(&program_path).unwrap();
    }
    client.ok("one__echo", json!({"text": "others go on"})).await;
    symlink(program(), &program_path).unwrap();
    assert_eq!(script(&client, "return 1").await["result"], 1);
    broker.stop().await;
}

#[tokio::test]
async fn a_script_that_is_cancelled_ends_with_its_calls() {
    let folder = tempfile::tempdir().unwrap();
    let broker = TestBroker::with(catalog()).code_mode(|settings| own_program(settings, folder.path())).start().await;
    let client = coder(&broker).await;
    let mut params = CallToolRequestParams::new("code-mode-x");
    let slow = "await Promise.all([1, 2].map(() => one.slow({ms: 60000, steps: 1})))";
    params.arguments = Some(object(json!({"script": slow})));
    let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
    let handle = client.peer().send_cancellable_request(request, PeerRequestOptions::no_options()).await.unwrap();
    eventually("both calls run", async || broker.store().open_audit_records().await.unwrap().len() == 3).await;
    handle.cancel(None).await.unwrap();
    eventually("nothing runs any more", async || broker.store().open_audit_records().await.unwrap().is_empty()).await;
    let ended = broker.audit().await;
    assert_eq!(ended.iter().filter(|record| *record == "slow cancelled").count(), 2, "{ended:?}");
    broker.stop().await;
    assert!(workers(folder.path()).is_empty());
}

#[tokio::test]
async fn the_doctor_boots_a_worker_and_says_what_holds_it() {
    let home = Home::with(&catalog());
    let report = home.run(&["doctor"]).await.ok();
    let line = report.lines().find(|line| line.contains("scripts:")).unwrap();
    assert!(line.starts_with("ok       scripts: a worker ran a script on "), "{line}");
    for part in ["seccomp", "no new privileges", "limits of memory"] {
        assert!(line.contains(part), "{line}");
    }
}
