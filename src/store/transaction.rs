//! Transactions of the writer.
//!
//! Not sqlx's: SQLite ends a transaction by itself when the disk is full, and sqlx 0.9 goes on counting it as open, so that
//! the connection would refuse every one after it.

use sqlx::{Error, SqliteConnection};

pub(super) async fn begin(connection: &mut SqliteConnection) -> Result<(), Error> {
    sqlx::query("BEGIN IMMEDIATE").execute(connection).await?;
    Ok(())
}

/// Commits if all went well, and takes everything back if not, or if it cannot be committed.
pub(super) async fn end<T, E: From<Error>>(connection: &mut SqliteConnection, outcome: Result<T, E>) -> Result<T, E> {
    let outcome = match outcome {
        Ok(value) => sqlx::query("COMMIT").execute(&mut *connection).await.map(|_| value).map_err(E::from),
        failed @ Err(_) => failed,
    };
    taken_back(connection, outcome).await
}

/// Takes a transaction back if something in it failed.
pub(super) async fn taken_back<T, E>(connection: &mut SqliteConnection, outcome: Result<T, E>) -> Result<T, E> {
    if outcome.is_err() {
        // Fails where SQLite has done it already.
        let _ = sqlx::query("ROLLBACK").execute(connection).await;
    }
    outcome
}
