//! The log and the sessions alone, without transport.

use std::{sync::Arc, time::Duration};

use mcp_broker::{
    audit::{Audit, Kind, Outcome, Status, Subject},
    clock::{Clock as _, SystemClock},
    config::Limits,
    ids::{Principal, ServerName, SessionId},
    lifecycle::Tasks,
    secrets::Redactor,
    store::{
        Durability, Store,
        audit::{Prune, Query, StatsBy},
        sessions::{Activation, SessionKind, SessionRow, SessionServerRow},
    },
};
use serde_json::{Map, Value, json};
use tokio::{task::JoinSet, time::Instant};

use crate::figures::{Report, Samples};

const SEQUENTIAL: usize = 5_000;
const CALLERS: u64 = 64;
const ROUNDS: usize = 40;

/// Records that are asked about; fewer with `MCP_BROKER_BENCH_RECORDS`.
const RECORDS: u64 = 1_000_000;

pub async fn run(report: &mut Report) -> anyhow::Result<()> {
    // The broker's own runtime: the figures are of its threads.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let figures = runtime.spawn(async move {
        let mut figures = Report::default();
        measure(&mut figures).await.map(|()| figures)
    });
    let figures = figures.await??;
    runtime.shutdown_background();
    report.append(figures);
    Ok(())
}

async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let records = std::env::var("MCP_BROKER_BENCH_RECORDS").ok().and_then(|n| n.parse().ok()).unwrap_or(RECORDS);
    let folder = tempfile::tempdir()?;
    let (tasks, _crashes) = Tasks::new();
    let store = Store::open(folder.path(), Durability::Process, &tasks).await?;
    let log = Arc::new(Log::new(&store));
    commits(report, &log).await?;
    sustained(report, &log, records).await?;
    resumed(report, &store).await?;
    store.close().await;
    started(report, folder.path()).await?;
    let (tasks, _crashes) = Tasks::new();
    let store = Store::open(folder.path(), Durability::Process, &tasks).await?;
    asked(report, &store, records).await?;
    let begun = Instant::now();
    let found = store.verify_audit(None).await?;
    report.add(
        &format!("verify, {records} records"),
        format!("{:.2} s", begun.elapsed().as_secs_f64()),
        format!("{found:?}").chars().take(40).collect(),
        "5 s for 1,000,000",
    );
    store.close().await;
    Ok(())
}

/// Calls as the log sees them.
struct Log {
    audit: Audit,
    sessions: Vec<SessionId>,
    servers: Vec<ServerName>,
    arguments: Map<String, Value>,
    result: Value,
}

impl Log {
    fn new(store: &Store) -> Self {
        let arguments =
            json!({"owner": "modelcontextprotocol", "repo": "servers", "query": "is:open label:bug", "page": 1});
        let content =
            json!([{"type": "text", "text": "12 issues match; the newest is about a socket that stays open"}]);
        Self {
            audit: Audit::new(store.clone(), Arc::new(SystemClock), Redactor::default(), &Limits::default()),
            sessions: (0..50).map(|_| SessionId::random()).collect(),
            servers: ["github", "time", "memory", "fetch", "notion"]
                .iter()
                .filter_map(|name| name.parse().ok())
                .collect(),
            arguments: arguments.as_object().cloned().unwrap_or_default(),
            result: json!({"content": content, "isError": false}),
        }
    }

    async fn call(&self, number: u64) -> anyhow::Result<(Duration, Duration)> {
        let pick = usize::try_from(number)?;
        let name = format!("tool_{}", number % 20);
        let subject = Subject {
            kind: Kind::Tool,
            parent: None,
            session: self.sessions.get(pick % self.sessions.len()),
            principal: &Principal::Administrator,
            client: Some(match number {
                0 => "zed 1.0",
                1 => "zed 1.1",
                _ => ["claude-code 2.1", "codex 1.4", "cursor 0.9"][pick % 3],
            }),
            server: self.servers.get(pick % self.servers.len()),
            name: &name,
            trace: None,
        };
        let begun = Instant::now();
        let record = self.audit.open(&subject, Some(&self.arguments)).await?;
        let opened = begun.elapsed();
        let failed = number % 1000 == 7;
        let outcome = Outcome {
            status: if failed { Status::Error } else { Status::Success },
            error: failed.then(|| format!("flamingo number {number} is not there").into()),
            result: Some(&self.result),
        };
        let begun = Instant::now();
        self.audit.close(record, outcome).await?;
        Ok((opened, begun.elapsed()))
    }
}

async fn commits(report: &mut Report, log: &Log) -> anyhow::Result<()> {
    let (mut opened, mut closed) = (Samples::default(), Samples::default());
    for number in 0..SEQUENTIAL {
        let (open, close) = log.call(number as u64).await?;
        opened.push(open);
        closed.push(close);
    }
    report.add(
        "one event committed, nothing beside it",
        format!("{:.3} ms open, {:.3} ms close, p50", opened.p50(), closed.p50()),
        format!("{:.3} / {:.3} ms p99", opened.p99(), closed.p99()),
        "0.1 ms p50",
    );
    Ok(())
}

async fn sustained(report: &mut Report, log: &Arc<Log>, records: u64) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let log = log.clone();
        callers.spawn(async move {
            let mut times = Vec::new();
            for number in (caller..records).step_by(usize::try_from(CALLERS)?) {
                let (open, close) = log.call(number).await?;
                times.extend([open, close]);
            }
            anyhow::Ok(times)
        });
    }
    let mut commits = Vec::new();
    while let Some(ended) = callers.join_next().await {
        commits.extend(ended??);
    }
    let took = begun.elapsed().as_secs_f64();
    let commits = Samples::from(commits);
    report.add(
        &format!("calls recorded a second, {CALLERS} callers"),
        format!("{:.0}/s over {took:.0} s", records as f64 / took),
        format!("all indexed behind; a commit {:.2} ms p50, {:.0} ms p99.9", commits.p50(), commits.quantile(0.999)),
        "20000/s",
    );
    Ok(())
}

async fn asked(report: &mut Report, store: &Store, records: u64) -> anyhow::Result<()> {
    let begun = Instant::now();
    store.audit_records(&Query::default(), None, 1).await?;
    let behind = begun.elapsed();
    let now = SystemClock.now();
    let some = store.audit_records(&Query::default(), None, 1).await?.records;
    let session = some.first().and_then(|record| record.session.as_deref()?.parse().ok());
    let ago = |seconds| now.checked_sub(jiff::SignedDuration::from_secs(seconds)).ok();
    let text = |text: &str| Some(text.to_owned());
    let filters = [
        ("nothing", Query::default()),
        ("session", Query { session, ..Query::default() }),
        ("server", Query { server: text("github"), ..Query::default() }),
        ("tool", Query { name: text("tool_7"), ..Query::default() }),
        ("status", Query { status: text("error"), ..Query::default() }),
        ("status, none such", Query { status: text("timeout"), ..Query::default() }),
        ("principal", Query { principal: text("administrator"), ..Query::default() }),
        ("client", Query { client: text("codex"), ..Query::default() }),
        ("client, seen twice", Query { client: text("zed"), ..Query::default() }),
        ("status open, none", Query { status: text("open"), ..Query::default() }),
        ("since", Query { since: ago(5), ..Query::default() }),
        ("until", Query { until: ago(30), ..Query::default() }),
        ("slower than, most", Query { slower_than_micros: Some(1), ..Query::default() }),
        ("slower than, none", Query { slower_than_micros: Some(60_000_000), ..Query::default() }),
        ("words, in every record", Query { grep: text("modelcontextprotocol"), ..Query::default() }),
        ("words, in one of a thousand", Query { grep: text("flamingo"), ..Query::default() }),
        ("words, in one", Query { grep: text("flamingo 7007"), ..Query::default() }),
        ("words and status", Query { grep: text("open"), status: text("error"), ..Query::default() }),
    ];
    for (name, query) in filters {
        let mut times = Samples::default();
        let mut found = 0;
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            found = store.audit_records(&query, None, 50).await?.records.len();
            times.push(begun.elapsed());
        }
        report.add(
            &format!("question by {name}, {records} records"),
            format!("{:.2} ms p50, {:.2} ms p99", times.p50(), times.p99()),
            format!("{found} records"),
            "50 ms",
        );
    }
    let begun = Instant::now();
    let rows = store.audit_stats(&Query::default(), StatsBy::Server, 100).await?.len();
    let counted = begun.elapsed();
    report.add(
        &format!("statistics by server, {records} records"),
        format!("{:.2} s", counted.as_secs_f64()),
        format!("{rows} rows; before the first question, {:.2} s to arrange what was left", behind.as_secs_f64()),
        "",
    );
    let cut = store.audit_cut(Prune::Before(now)).await?;
    anyhow::ensure!(cut.is_some(), "there is something that could be pruned");
    Ok(())
}

async fn started(report: &mut Report, folder: &std::path::Path) -> anyhow::Result<()> {
    let begun = Instant::now();
    let (tasks, _crashes) = Tasks::new();
    let store = Store::open(folder, Durability::Process, &tasks).await?;
    let log = Log::new(&store);
    log.audit.sweep().await?;
    let took = begun.elapsed();
    report.add("database opened and swept", format!("{:.1} ms", took.as_secs_f64() * 1e3), String::new(), "200 ms");
    store.close().await;
    Ok(())
}

/// A session with four servers and their config, read back.
async fn resumed(report: &mut Report, store: &Store) -> anyhow::Result<()> {
    let (id, now) = (SessionId::random(), SystemClock.now());
    store
        .insert_session(
            SessionRow {
                id: id.clone(),
                kind: SessionKind::Named,
                principal: Principal::Local,
                name: Some("bench".to_owned()),
                token: None,
                created_at: now,
                used_at: now,
                expires_at: None,
                label: None,
                ended_at: None,
                end_reason: None,
            },
            Vec::new(),
        )
        .await?;
    for server in ["github", "time", "memory", "fetch"] {
        let row = SessionServerRow {
            server: server.parse()?,
            prefix: server.to_owned(),
            activate: Activation::All,
            added_at: now,
        };
        let config = json!({"folder": "/data", "limit": 10}).as_object().cloned();
        store.put_session_servers(&id, vec![(row, config)]).await?;
    }
    let mut times = Samples::default();
    for _ in 0..ROUNDS * 10 {
        let begun = Instant::now();
        anyhow::ensure!(store.session(&id).await?.is_some_and(|session| session.servers.len() == 4), "it is whole");
        times.push(begun.elapsed());
    }
    report.add(
        "session read back, four servers",
        format!("{:.3} ms p50, {:.3} ms p99", times.p50(), times.p99()),
        "its instances start on their next call".to_owned(),
        "5 ms",
    );
    Ok(())
}
