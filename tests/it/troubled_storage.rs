//! A database that cannot be written, is newer, or was tampered with.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::support::{
    Era, FixtureCatalog, TestBroker,
    client::text_of,
    database,
    disk::{self, SmallDisk},
    process::Home,
};

fn home() -> Home {
    Home::with(&FixtureCatalog::new().server("fixture", &[], &[]))
}

async fn change(home: &Home, sql: &'static str) {
    let mut connection = database(&home.data()).await;
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_left_alone() {
    let home = home();
    home.run(&["feature", "ls"]).await.ok();
    change(
        &home,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', 1, x'00', 0)",
    )
    .await;
    let refused = home.run(&["feature", "ls"]).await;
    assert_eq!(refused.code(), 1);
    assert!(refused.err().contains("was written by a newer mcp-broker"), "{}", refused.err());
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named() {
    let home = home();
    std::fs::write(home.data(), "a file where the folder should be").unwrap();
    let refused = home.run(&["serve"]).await;
    assert_eq!(refused.code(), 1);
    assert!(refused.err().contains("could not use the data folder"), "{}", refused.err());
}

#[tokio::test]
async fn a_changed_record_is_noticed() {
    let home = home();
    let broker = home.serve().await;
    let client = broker.connect(Era::Legacy).await;
    client.add("fixture").await;
    client.ok("fixture__echo", json!({"text": "true"})).await;
    broker.terminate().await;
    assert!(home.run(&["audit", "verify"]).await.ok().starts_with("intact"));
    change(
        &home,
        "DROP TRIGGER audit_opened_is_final;
         UPDATE audit_opened SET arguments = '{\"text\":\"false\"}' WHERE name = 'echo';",
    )
    .await;
    let verified = home.run(&["audit", "verify"]).await;
    assert_eq!(verified.code(), 4);
    assert!(verified.out().contains("not intact"), "{}", verified.out());
}

#[tokio::test]
async fn the_log_refuses_to_be_changed() {
    let home = home();
    home.run(&["feature", "disable", "static-tools"]).await.ok();
    let mut connection = database(&home.data()).await;
    for change in ["UPDATE audit_opened SET name = 'x'", "DELETE FROM audit_closed", "DELETE FROM audit_opened"] {
        let error = sqlx::raw_sql(change).execute(&mut connection).await.unwrap_err().to_string();
        assert!(error.contains("append-only"), "{error}");
    }
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_done() {
    let broker = TestBroker::start().await;
    let client = broker.connect(Era::Legacy).await;
    client.add("fixture").await;
    let mut holder = database(broker.folder()).await;
    sqlx::raw_sql("CREATE TRIGGER full BEFORE INSERT ON audit_opened BEGIN SELECT RAISE(ABORT, 'disk full'); END")
        .execute(&mut holder)
        .await
        .unwrap();
    let pid = broker.folder().join("proof");
    let refused = client.call("fixture__echo", json!({"text": pid})).await.to_string();
    assert!(refused.contains("nothing was done, because it could not be recorded"), "{refused}");
    sqlx::raw_sql("DROP TRIGGER full").execute(&mut holder).await.unwrap();
    assert!(client.call("fixture__echo", json!({"text": "again"})).await.is_ok(), "and goes on when it can be");

    sqlx::raw_sql("CREATE TRIGGER full BEFORE INSERT ON audit_closed BEGIN SELECT RAISE(ABORT, 'disk full'); END")
        .execute(&mut holder)
        .await
        .unwrap();
    let unrecorded = client.call("fixture__echo", json!({"text": "x"})).await.to_string();
    assert!(unrecorded.contains("its outcome could not be recorded"), "{unrecorded}");
    sqlx::raw_sql("DROP TRIGGER full").execute(&mut holder).await.unwrap();
    holder.close().await.unwrap();
    let broker = broker.restart().await;
    let audit = broker.audit().await;
    assert_eq!(audit.last().unwrap(), "echo abandoned");
    broker.stop().await;
}

#[tokio::test]
async fn a_script_does_nothing_more_once_the_outcome_of_a_call_could_not_be_recorded() {
    let broker = TestBroker::start().await;
    let client = broker.connect(Era::Legacy).await;
    client.add("fixture").await;
    client.ok("code-mode", json!({"servers": ["fixture"], "name": "x"})).await;
    let mut holder = database(broker.folder()).await;
    let full = "CREATE TRIGGER full BEFORE INSERT ON audit_closed
                WHEN (SELECT parent FROM audit_opened WHERE record = NEW.record) IS NOT NULL
                BEGIN SELECT RAISE(ABORT, 'disk full'); END";
    sqlx::raw_sql(full).execute(&mut holder).await.unwrap();
    let source = "const {text} = await fixture.echo({text: 'first'});
                  try { await fixture.echo({text}) } catch { return 'nobody need know' }";
    let unrecorded = client.call("code-mode-x", json!({"script": source})).await.to_string();
    assert!(unrecorded.contains("its outcome could not be recorded"), "{unrecorded}");
    let calls = "SELECT count(*) FROM audit_opened WHERE parent IS NOT NULL";
    let calls: i64 = sqlx::query_scalar(calls).fetch_one(&mut holder).await.unwrap();
    assert_eq!(calls, 1, "the second was not made");
    sqlx::raw_sql("DROP TRIGGER full").execute(&mut holder).await.unwrap();
    holder.close().await.unwrap();
    assert!(client.call("code-mode-x", json!({"script": source})).await.is_ok(), "and the next script runs");
    let broker = broker.restart().await;
    let audit = broker.audit().await;
    assert!(audit.contains(&"echo abandoned".to_owned()), "{audit:?}");
    broker.stop().await;
}

#[tokio::test]
async fn a_full_disk_refuses_calls_until_there_is_room_again() {
    let home = home();
    let Some(disk) = SmallDisk::mount(&home.data(), "4m") else { return };
    let broker = home.serve().await;
    let client = broker.connect(Era::Legacy).await;
    client.add("fixture").await;
    disk.fill();

    let long = json!({"text": "x".repeat(3000)});
    let refused = loop {
        let outcome = client.call("fixture__echo", long.clone()).await;
        if !outcome.is_ok() {
            break outcome.to_string();
        }
    };
    assert!(refused.contains("could not be recorded") && refused.contains("full"), "{refused}");
    disk.free();
    client.ok("fixture__echo", long).await;
    assert_eq!(broker.terminate().await, 0);
    assert!(home.run(&["audit", "verify"]).await.ok().starts_with("intact"));
    drop(disk);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_slow_disk_makes_calls_wait_and_nothing_else() {
    const CLIENTS: usize = 8;
    const CALLS: usize = 5;
    let (home, was_slow) = disk::slow(home());
    let broker = home.serve().await;
    let clients = join_all((0..CLIENTS).map(|_| broker.connect(Era::Legacy))).await;
    join_all(clients.iter().map(|client| client.add("fixture"))).await;
    let open = AtomicUsize::new(0);
    let calling = join_all(clients.iter().enumerate().map(async |(client, connected)| {
        for call in 0..CALLS {
            let text = format!("{client} {call}");
            open.fetch_add(1, Ordering::SeqCst);
            assert!(text_of(&connected.ok("fixture__echo", json!({"text": text})).await).contains(&text));
            open.fetch_sub(1, Ordering::SeqCst);
        }
    }));
    let looking = async {
        let mut meanwhile = 0;
        for _ in 0..10 {
            home.run(&["session", "ls"]).await.ok();
            meanwhile += usize::from(open.load(Ordering::SeqCst) > 0);
        }
        assert!(meanwhile > 0, "who reads does not wait for those who write");
    };
    tokio::join!(calling, looking);
    assert!(was_slow.exists(), "the database was written through the slow disk");
    assert_eq!(broker.terminate().await, 0);
    let records = home.run(&["audit", "--tool", "echo", "--format", "json", "--limit", "1000"]).await.ok();
    let records: Vec<Value> = serde_json::from_str(&records).unwrap();
    assert_eq!(records.len(), CLIENTS * CALLS);
    assert!(records.iter().all(|record| record["status"] == "success"), "each that was answered has its end");
    assert!(home.run(&["audit", "verify"]).await.ok().starts_with("intact"));
}
