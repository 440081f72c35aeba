//! Sessions, their servers and configs.

mod ends;
mod pages;
mod rows;

use futures_util::FutureExt as _;
use serde_json::{Map, Value};
use sqlx::{Row as _, sqlite::SqliteRow};

use super::{Store, StoreError, corrupt, micros, timestamp, writer::Statement};
use crate::{
    clock::Timestamp,
    ids::{Principal, ServerName, SessionId, TokenHash},
};

pub use pages::Page;
pub use rows::{Activation, SessionKind, SessionRow, SessionServerRow, StoredSession};

impl Store {
    /// Keeps a new session, with the servers that are its alone.
    ///
    /// # Errors
    ///
    /// When it could not be committed, for one because its name is taken: then nothing of it is kept.
    pub async fn insert_session(&self, row: SessionRow, entries: Vec<(ServerName, String)>) -> Result<(), StoreError> {
        self.writer()
            .change(move |connection| {
                async move {
                    sqlx::query(
                        "INSERT INTO sessions
                             (id, kind, principal, name, token_hash, created_at, used_at, expires_at, label)
                         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    )
                    .bind(row.id.as_str())
                    .bind(row.kind.word())
                    .bind(row.principal.to_string())
                    .bind(row.name)
                    .bind(row.token.as_ref().map(TokenHash::as_bytes))
                    .bind(micros(row.created_at))
                    .bind(micros(row.used_at))
                    .bind(row.expires_at.map(micros))
                    .bind(row.label)
                    .execute(&mut *connection)
                    .await?;
                    for (server, entry) in entries {
                        let keep = "INSERT INTO session_entries (session, server, entry, added_at) VALUES (?, ?, ?, ?)";
                        sqlx::query(keep)
                            .bind(row.id.as_str())
                            .bind(server.as_str())
                            .bind(entry)
                            .bind(micros(row.created_at))
                            .execute(&mut *connection)
                            .await?;
                    }
                    Ok(())
                }
                .boxed()
            })
            .await
    }

    /// Reads a session whole, ended or not.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn session(&self, id: &SessionId) -> Result<Option<StoredSession>, StoreError> {
        let found =
            sqlx::query("SELECT * FROM sessions WHERE id = ?").bind(id.as_str()).fetch_optional(self.readers()).await?;
        let Some(row) = found else { return Ok(None) };
        let servers = sqlx::query("SELECT * FROM session_servers WHERE session = ? ORDER BY position")
            .bind(id.as_str())
            .fetch_all(self.readers())
            .await?;
        let configs = sqlx::query("SELECT server, config FROM session_configs WHERE session = ?")
            .bind(id.as_str())
            .fetch_all(self.readers())
            .await?;
        Ok(Some(StoredSession {
            row: session_row(&row)?,
            servers: servers.iter().map(server_row).collect::<Result<_, _>>()?,
            configs: configs.iter().map(config_row).collect::<Result<_, _>>()?,
            entries: self.session_entries(id).await?,
            code_tools: self.code_tools(id).await?,
            compose: self.session_compose(id).await?,
        }))
    }

    /// The session with that name that has not ended.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn session_named(&self, name: &str) -> Result<Option<SessionId>, StoreError> {
        self.find("SELECT id FROM sessions WHERE name = ? AND ended_at IS NULL", name).await
    }

    /// The session that holds the servers of the operator's choice for `principal`.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn session_of_principal(&self, principal: &Principal) -> Result<Option<SessionId>, StoreError> {
        self.find(
            "SELECT id FROM sessions WHERE principal = ? AND kind = 'principal' AND ended_at IS NULL",
            &principal.to_string(),
        )
        .await
    }

    /// The session with that id, or else the newest that has or had that name.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn any_session(&self, id_or_name: &str) -> Result<Option<SessionId>, StoreError> {
        self.find(
            "SELECT id FROM sessions WHERE id = ?1 OR name = ?1 ORDER BY id = ?1 DESC, created_at DESC LIMIT 1",
            id_or_name,
        )
        .await
    }

    async fn find(&self, sql: &'static str, key: &str) -> Result<Option<SessionId>, StoreError> {
        let row = sqlx::query(sql).bind(key).fetch_optional(self.readers()).await?;
        row.map(|row| row.try_get::<String, _>("id")?.parse().map_err(corrupt)).transpose()
    }

    /// The session that a bearer token opens, ended or not.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn session_by_token(&self, token: &TokenHash) -> Result<Option<SessionId>, StoreError> {
        let row = sqlx::query("SELECT id FROM sessions WHERE token_hash = ?")
            .bind(token.as_bytes())
            .fetch_optional(self.readers())
            .await?;
        row.map(|row| row.try_get::<String, _>("id")?.parse().map_err(corrupt)).transpose()
    }

    /// Sessions that have not ended, most recently used first.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn live_sessions(&self) -> Result<Vec<SessionRow>, StoreError> {
        let rows = sqlx::query("SELECT * FROM sessions WHERE ended_at IS NULL ORDER BY used_at DESC, id")
            .fetch_all(self.readers())
            .await?;
        rows.iter().map(session_row).collect()
    }

    /// How many sessions have not ended.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn count_live_sessions(&self) -> Result<usize, StoreError> {
        let row =
            sqlx::query("SELECT count(*) AS n FROM sessions WHERE ended_at IS NULL").fetch_one(self.readers()).await?;
        Ok(usize::try_from(row.try_get::<i64, _>("n")?).unwrap_or(0))
    }

    /// Notes when sessions were last used.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn touch_sessions(&self, used: Vec<(SessionId, Timestamp)>) -> Result<(), StoreError> {
        self.writer()
            .change(move |connection| {
                async move {
                    for (id, at) in used {
                        sqlx::query("UPDATE sessions SET used_at = max(used_at, ?) WHERE id = ? AND ended_at IS NULL")
                            .bind(micros(at))
                            .bind(id.as_str())
                            .execute(&mut *connection)
                            .await?;
                    }
                    Ok(())
                }
                .boxed()
            })
            .await
    }

    /// Gives a session a name, in place of the one it may have. Says whether there is one that has not ended.
    ///
    /// # Errors
    ///
    /// When it could not be committed, for one because the name is taken.
    pub async fn rename_session(&self, id: &SessionId, name: String) -> Result<bool, StoreError> {
        let statement =
            sqlx::query("UPDATE sessions SET name = ? WHERE id = ? AND ended_at IS NULL").bind(name).bind(id.as_str());
        self.writer().changes_a_row(statement).await
    }

    /// Gives a session a bearer token of its own, in place of the one it may have. Says whether there is one that has not
    /// ended.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn set_session_token(&self, id: &SessionId, token: TokenHash) -> Result<bool, StoreError> {
        let statement = sqlx::query("UPDATE sessions SET token_hash = ? WHERE id = ? AND ended_at IS NULL")
            .bind(token.as_bytes())
            .bind(id.as_str());
        self.writer().changes_a_row(statement).await
    }

    /// Ends a session: its connections and secrets are forgotten, its history stays.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn end_session(&self, id: &SessionId, reason: &'static str, now: Timestamp) -> Result<(), StoreError> {
        let id = id.clone();
        self.writer()
            .change(move |connection| {
                async move {
                    sqlx::query("UPDATE sessions SET ended_at = ?, end_reason = ? WHERE id = ? AND ended_at IS NULL")
                        .bind(micros(now))
                        .bind(reason)
                        .bind(id.as_str())
                        .execute(&mut *connection)
                        .await?;
                    for forget in [
                        "DELETE FROM connections WHERE session = ?",
                        "DELETE FROM secrets WHERE scope = ?",
                        "DELETE FROM session_configs WHERE session = ?",
                        "DELETE FROM session_compose WHERE session = ?",
                        "DELETE FROM session_entries WHERE session = ?",
                    ] {
                        sqlx::query(forget).bind(id.as_str()).execute(&mut *connection).await?;
                    }
                    Ok(())
                }
                .boxed()
            })
            .await
    }

    /// Keeps servers that are on in a session, replacing what was kept of them, each with its config if there is one: all of
    /// them, or none.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn put_session_servers(
        &self,
        session: &SessionId,
        servers: Vec<(SessionServerRow, Option<Map<String, Value>>)>,
    ) -> Result<(), StoreError> {
        let session = session.clone();
        self.writer()
            .change(move |connection| {
                async move {
                    for (server, config) in servers {
                        put_server(&session, &server).execute(&mut *connection).await?;
                        if let Some(config) = config {
                            let keeping = put_config(&session, &server.server, config, server.added_at);
                            keeping.execute(&mut *connection).await?;
                        }
                    }
                    Ok(())
                }
                .boxed()
            })
            .await
    }

    /// Keeps the order of a session's servers.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn order_session_servers(&self, session: &SessionId, order: Vec<ServerName>) -> Result<(), StoreError> {
        let session = session.clone();
        self.writer()
            .change(move |connection| {
                async move {
                    for (position, server) in (1i64..).zip(order) {
                        sqlx::query("UPDATE session_servers SET position = ? WHERE session = ? AND server = ?")
                            .bind(position)
                            .bind(session.as_str())
                            .bind(server.as_str())
                            .execute(&mut *connection)
                            .await?;
                    }
                    Ok(())
                }
                .boxed()
            })
            .await
    }

    /// Forgets that a server was on in a session, and what clients follow of it; its config stays.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn delete_session_server(&self, session: &SessionId, server: &ServerName) -> Result<(), StoreError> {
        let (session, server) = (session.clone(), server.clone());
        self.writer()
            .change(move |connection| {
                async move {
                    for forget in forget_server(&session, &server) {
                        forget.execute(&mut *connection).await?;
                    }
                    Ok(())
                }
                .boxed()
            })
            .await
    }

    /// Keeps a server's config in a session.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn put_session_config(
        &self,
        session: &SessionId,
        server: &ServerName,
        config: Map<String, Value>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.writer().execute(put_config(session, server, config, now)).await
    }
}

/// Keeps a server that is on, with what is kept of it already replaced.
pub(super) fn put_server(session: &SessionId, server: &SessionServerRow) -> Statement {
    sqlx::query(
        "INSERT INTO session_servers (session, server, prefix, position, activate, added_at)
         VALUES (?1, ?2, ?3,
             (SELECT coalesce(max(position), 0) + 1 FROM session_servers WHERE session = ?1), ?4, ?5)
         ON CONFLICT (session, server) DO UPDATE SET activate = excluded.activate",
    )
    .bind(session.to_string())
    .bind(server.server.to_string())
    .bind(server.prefix.clone())
    .bind(server.activate.to_value().to_string())
    .bind(micros(server.added_at))
}

/// Forgets that a server was on, and what clients follow of it.
pub(super) fn forget_server(session: &SessionId, server: &ServerName) -> [Statement; 2] {
    [
        "DELETE FROM session_servers WHERE session = ? AND server = ?",
        "DELETE FROM subscriptions
         WHERE connection IN (SELECT id FROM connections WHERE session = ?) AND server = ?",
    ]
    .map(|forget| sqlx::query(forget).bind(session.to_string()).bind(server.to_string()))
}

fn put_config(session: &SessionId, server: &ServerName, config: Map<String, Value>, now: Timestamp) -> Statement {
    sqlx::query(
        "INSERT INTO session_configs (session, server, config, set_at) VALUES (?, ?, ?, ?)
         ON CONFLICT (session, server) DO UPDATE SET config = excluded.config, set_at = excluded.set_at",
    )
    .bind(session.as_str())
    .bind(server.as_str())
    .bind(Value::Object(config).to_string())
    .bind(micros(now))
}

fn session_row(row: &SqliteRow) -> Result<SessionRow, StoreError> {
    let kind: String = row.try_get("kind")?;
    let token: Option<Vec<u8>> = row.try_get("token_hash")?;
    Ok(SessionRow {
        id: row.try_get::<String, _>("id")?.parse().map_err(corrupt)?,
        kind: SessionKind::from_word(&kind).ok_or_else(|| corrupt(format!("session kind `{kind}`")))?,
        principal: row.try_get::<String, _>("principal")?.parse().map_err(corrupt)?,
        name: row.try_get("name")?,
        token: token.and_then(|bytes| TokenHash::from_bytes(&bytes)),
        created_at: timestamp(row.try_get("created_at")?),
        used_at: timestamp(row.try_get("used_at")?),
        expires_at: row.try_get::<Option<i64>, _>("expires_at")?.map(timestamp),
        label: row.try_get("label")?,
        ended_at: row.try_get::<Option<i64>, _>("ended_at")?.map(timestamp),
        end_reason: row.try_get("end_reason")?,
    })
}

fn server_row(row: &SqliteRow) -> Result<SessionServerRow, StoreError> {
    let activate: String = row.try_get("activate")?;
    let activate = serde_json::from_str(&activate).ok().as_ref().and_then(Activation::from_value);
    Ok(SessionServerRow {
        server: row.try_get::<String, _>("server")?.parse().map_err(corrupt)?,
        prefix: row.try_get("prefix")?,
        activate: activate.ok_or_else(|| corrupt("a server's list of active tools"))?,
        added_at: timestamp(row.try_get("added_at")?),
    })
}

fn config_row(row: &SqliteRow) -> Result<(ServerName, Map<String, Value>), StoreError> {
    let server = row.try_get::<String, _>("server")?.parse().map_err(corrupt)?;
    let config = serde_json::from_str(&row.try_get::<String, _>("config")?).map_err(corrupt)?;
    Ok((server, config))
}
